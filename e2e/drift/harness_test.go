// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package drift proves on a real API server that the guard finds what changed behind its back, restores it, and says who did it.
package drift

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

func TestMain(m *testing.M) {
	harness.Main(m, 1, harness.Unguarded)
}

const (
	tamperer = "tamperer"
	stranger = "example.com/stranger"
)

// start applies the built-in reservation anew, and starts a guard that looks after it.
func start(t *testing.T, mode drift.Mode, flags ...string) (*scenario.World, *testbed.Guard) {
	t.Helper()
	world := take(t)
	guard := startGuard(t, mode, flags...)
	awaitNoted(t, world)
	return world, guard
}

// take applies the built-in reservation anew, and deletes the records of other tests, which may be of the same second.
func take(t *testing.T) *scenario.World {
	t.Helper()
	harness.Take(t)
	world := harness.World(t)
	forget(t)
	deleteAll(t, "auditrecords")
	t.Cleanup(func() { forget(t) })
	return world
}

// forget deletes what the guard has noted, and all unlocks.
func forget(t *testing.T) {
	t.Helper()
	ctx, maps := context.WithoutCancel(t.Context()), harness.Clients(t).CoreV1().ConfigMaps(guardian.Namespace)
	for _, name := range []string{drift.StateName, lookup.RetirementsName, lookup.CredentialsName, guardian.Replicas} {
		if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	deleteAll(t, "unlocks")
}

// deleteAll deletes all objects of a custom resource.
func deleteAll(t *testing.T, resource string) {
	t.Helper()
	unguarded, err := scenario.NewClient(harness.Of(t).Cluster.UnguardedConfig())
	if err == nil {
		_, err = unguarded.Do(context.WithoutCancel(t.Context()), scenario.Write{
			Method: http.MethodDelete, Path: "/apis/" + v1alpha1.GroupVersion().String() + "/" + resource, ContentType: scenario.JSON,
		})
	}
	if err != nil {
		t.Error(err)
	}
}

func startGuard(t *testing.T, mode drift.Mode, flags ...string) *testbed.Guard {
	t.Helper()
	return harness.StartGuard(t, append([]string{"--drift=" + string(mode)}, flags...)...)
}

// awaitNoted waits until the guard has noted that it decides, and has seen each resource.
func awaitNoted(t *testing.T, world *scenario.World) {
	t.Helper()
	harness.Eventually(t, "the guard notes what it sees", func() (bool, any) {
		state := state(t)
		if state.Decided.IsZero() || state.Report == nil {
			return false, state
		}
		for _, object := range world.Objects() {
			if !state.Report.Seen[object.String()].InSync {
				return false, state.Report
			}
		}
		return true, nil
	})
}

func state(t *testing.T) drift.State {
	t.Helper()
	state, err := drift.ReadState(t.Context(), harness.Clients(t), guardian.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// away ends the guard and removes its webhook configuration, as an attacker does who wants to write.
func away(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	guard.Kill()
	harness.RemoveRegistration(t)
}

// tamper makes a write past the guard, as another field manager.
func tamper(t *testing.T, world *scenario.World, write scenario.Write) {
	t.Helper()
	query := map[string][]string{"fieldManager": {tamperer}}
	maps.Copy(query, write.Query)
	write.Query = query
	answer, err := world.Unguarded.Do(t.Context(), write)
	if err != nil || answer.Code >= http.StatusBadRequest {
		t.Fatalf("%s %s: %d %s %v", write.Method, write.Path, answer.Code, answer.Body, err)
	}
}

// inSync returns a check for Eventually: each object is as its manifest says, and the token is filled.
func inSync(t *testing.T, world *scenario.World, objects ...*scenario.Object) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		for _, object := range objects {
			if paths := driftOf(t, world, object); paths == nil || len(paths) > 0 {
				return false, fmt.Sprint(object, paths)
			}
		}
		return true, nil
	}
}

// driftOf returns the paths in which an object differs from its manifest; nil if it is absent.
func driftOf(t *testing.T, world *scenario.World, object *scenario.Object) []string {
	t.Helper()
	stored := read(t, world, object)
	if stored == nil {
		return nil
	}
	paths, err := live.Drift(object.Resource, stored)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{}, paths...)
}

func read(t *testing.T, world *scenario.World, object *scenario.Object) *unstructured.Unstructured {
	t.Helper()
	stored, err := world.Read(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// records returns the records of an outcome since the test began.
func records(t *testing.T, outcome v1alpha1.Outcome, object *scenario.Object, since time.Time) []v1alpha1.AuditRecord {
	t.Helper()
	filter := audit.Filter{Outcome: string(outcome), Since: since}
	if object != nil {
		filter.Resource = `"` + object.Reference(object.Namespace, object.Name).String() + `"`
	}
	found, err := harness.Records(t).List(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// awaitFinding waits until the guard has published drift of an object that satisfies the check.
func awaitFinding(t *testing.T, object *scenario.Object, what string, check func(drift.Finding) bool) drift.Finding {
	t.Helper()
	var found drift.Finding
	harness.Eventually(t, what, func() (bool, any) {
		state := state(t)
		if state.Report == nil {
			return false, state
		}
		i := slices.IndexFunc(state.Report.Drift, func(f drift.Finding) bool { return f.Resource == object.String() && check(f) })
		if i >= 0 {
			found = state.Report.Drift[i]
		}
		return i >= 0, state.Report.Drift
	})
	return found
}

func metric(t *testing.T, guard *testbed.Guard, name string) float64 {
	t.Helper()
	value, err := guard.Metric(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // impossible: tests pass plain values
	}
	return string(text)
}

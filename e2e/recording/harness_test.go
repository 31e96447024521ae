// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package recording proves that no denial is lost, and none counted twice. The judge is the API server's own audit log.
package recording

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// shared is what all tests of this package use one after the other.
var shared struct {
	world   *scenario.World
	program string
}

func TestMain(m *testing.M) {
	os.Exit(program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program = guardian
		if err := errors.Join(cluster.StartUnguarded(ctx), cluster.InstallCRDs(ctx)); err != nil {
			return err
		}
		var err error
		shared.world, err = scenario.NewWorld(ctx, cluster)
		return err
	}))
}

// replica is one place in which a guard runs, dies, and runs again: its spool stays.
type replica struct {
	t     *testing.T
	front *testbed.Front
	flags []string
	guard *testbed.Guard
}

// startReplicas starts guards behind one front, and returns once reviews reach them.
func startReplicas(t *testing.T, count int, flags ...string) []*replica {
	t.Helper()
	front, err := testbed.StartFront()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(front.Stop)
	t.Cleanup(func() { removeRegistration(t) })
	replicas := make([]*replica, count)
	for i := range replicas {
		replicas[i] = &replica{t: t, front: front, flags: append([]string{
			"--url=" + front.URL(), "--leader-elect", "--spool-dir=" + filepath.Join(t.TempDir(), "spool"),
		}, flags...)}
		replicas[i].start()
		t.Cleanup(replicas[i].stop)
	}
	eventually(t, "a forbidden write is denied", func() bool {
		answer, err := shared.world.Guarded.Do(t.Context(), scenario.Delete(shared.world.Role).DryRun())
		return err == nil && answer.Code == http.StatusForbidden
	})
	return replicas
}

// start returns once the guard is ready, which is when it stands behind the front.
func (r *replica) start() {
	guard, err := shared.world.Cluster.LaunchGuard(shared.program, r.flags...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.guard = guard
	eventually(r.t, "the guard is ready", func() bool {
		response, err := http.Get(guard.ProbesURL() + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	r.front.Add(guard)
}

// kill ends the guard as a node that fails does.
func (r *replica) kill() {
	r.front.Remove(r.guard)
	r.guard.Kill()
}

// stop ends the guard in order: it stores what waits.
func (r *replica) stop() {
	r.front.Remove(r.guard)
	r.guard.Stop()
	if r.t.Failed() {
		log, err := r.guard.Log()
		r.t.Logf("log of the guard: %v\n%s", err, log[max(0, len(log)-4<<10):])
	}
}

func removeRegistration(t *testing.T) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(shared.world.Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	err = clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// counts returns what the records of the cluster count, by their names.
func counts(t *testing.T) map[string]int64 {
	t.Helper()
	store, err := store.New(shared.world.Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.List(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	result := map[string]int64{}
	for i := range records {
		result[records[i].Name] = records[i].Spec.Count
	}
	return result
}

func metricsOf(r *replica) string { return get(r.guard.MetricsURL() + "/metrics") }

// get returns what stands at a URL, or why nothing does.
func get(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// awaitStored waits until no guard has anything left to store.
func awaitStored(t *testing.T, replicas []*replica) {
	t.Helper()
	for _, r := range replicas {
		eventually(t, "all records are stored", func() bool {
			pending, err := r.guard.Metric(t.Context(), "apigw_guardian_audit_pending_records")
			return err == nil && pending == 0
		})
	}
}

// giveUp is how long something may take that must come about.
const giveUp = 2 * time.Minute

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, giveUp, true, func(context.Context) (bool, error) {
		return holds(), nil
	})
	if err != nil {
		t.Fatalf("%s: not in %v", what, giveUp)
	}
}

// unguardedKubeconfig leads to the API server that asks no webhook.
func unguardedKubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, testbed.WriteKubeconfig(path, shared.world.Cluster.UnguardedConfig()))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

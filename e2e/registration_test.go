// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

const (
	inPlaceGauge = "apigw_guardian_registration_in_place"
	guardSpace   = "apigw-guardian" // the namespace of the guard, and of its lease
)

// The API server's write of the last-used label skips the guard. A client that impersonates it cannot change anything else that way.
func TestNothingPassesWithTheLastUsedLabel(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	apiServer := scenario.Identity{User: "system:apiserver", Groups: []string{"system:masters"}}
	for name, patch := range map[string]string{
		"generateName":      `{"metadata":{"generateName":"x-","labels":{"` + lastUsedLabel + `":"2026-11-27"}}}`,
		"no date":           `{"metadata":{"labels":{"` + lastUsedLabel + `":"never"}}}`,
		"the label removed": `{"metadata":{"labels":{"` + lastUsedLabel + `":null}}}`,
		"another label":     `{"metadata":{"labels":{"` + lastUsedLabel + `":"2026-11-27","x":"y"}}}`,
		"an annotation":     `{"metadata":{"annotations":{"x":"y"},"labels":{"` + lastUsedLabel + `":"2026-11-27"}}}`,
		"a finalizer":       `{"metadata":{"finalizers":["example.com/x"],"labels":{"` + lastUsedLabel + `":"2026-11-27"}}}`,
		"an owner": `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"x"}],"labels":{"` +
			lastUsedLabel + `":"2026-11-27"}}}`,
		"the Secret immutable": `{"immutable":true,"metadata":{"labels":{"` + lastUsedLabel + `":"2026-11-27"}}}`,
		"a key of data":        `{"data":{"x":"eA=="},"metadata":{"labels":{"` + lastUsedLabel + `":"2026-11-27"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			pastGuard(t, world, scenario.Merge(world.Token, `{"metadata":{"labels":{"`+lastUsedLabel+`":"2026-11-26"}}}`))
			write := scenario.Merge(world.Token, patch)
			write.As = apiServer
			answer, err := world.Guarded.Do(t.Context(), write)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Code != http.StatusForbidden {
				t.Errorf("got %d %s, want 403", answer.Code, answer.Body)
			}
		})
	}
	t.Run("the label alone", func(t *testing.T) {
		write := scenario.Merge(world.Token, `{"metadata":{"labels":{"`+lastUsedLabel+`":"2026-11-27"}}}`)
		write.As = apiServer
		answer, err := world.Guarded.Do(t.Context(), write)
		if err != nil {
			t.Fatal(err)
		}
		requireUnasked(t, answer)
	})
}

// An owner that a finalizer holds in deletion is not gone: the guard puts its webhook configuration back. Once the owner is gone, so
// is the webhook configuration; and it comes back with the owner.
func TestTheRegistrationOutlivesAnOwnerThatOnlyTerminates(t *testing.T) {
	harness.Take(t)
	const owner = "owner-that-terminates"
	roles := harness.Clients(t).RbacV1().ClusterRoles()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: owner, Finalizers: []string{"example.com/hold"}}}
	must(t)(roles.Create(t.Context(), role, metav1.CreateOptions{}))
	t.Cleanup(func() { releaseRole(t, owner) })
	guard := harness.StartGuard(t, "--owner-clusterrole", owner)
	must(t)(nil, roles.Delete(t.Context(), owner, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}))
	deleteRegistration(t)
	harness.Eventually(t, "the webhook configuration is back", isRegistered(t))
	requireRecorded(t, "RegistrationDeleted", "DELETE")

	releaseRole(t, owner)
	harness.Eventually(t, "it is gone with its owner", isInPlace(t, guard, false))
	must(t)(roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: owner}}, metav1.CreateOptions{}))
	harness.Eventually(t, "it comes back with its owner", isInPlace(t, guard, true))
	must(t)(nil, roles.Delete(t.Context(), owner, metav1.DeleteOptions{}))
	harness.Eventually(t, "it is gone again", func() (bool, any) {
		registered, err := isRegistered(t)()
		return !registered, err
	})
}

func releaseRole(t *testing.T, name string) {
	t.Helper()
	_, err := harness.Clients(t).RbacV1().ClusterRoles().Patch(context.WithoutCancel(t.Context()), name, types.MergePatchType,
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// A lease that names another holder for a day is taken over, and a deleted webhook configuration comes back.
func TestALeaseHeldForADayIsTakenOver(t *testing.T) {
	harness.Take(t)
	guard := harness.StartGuard(t, "--leader-elect")
	must(t)(nil, holdLease(t.Context(), t, 86_400))
	deleteRegistration(t)
	harness.Eventually(t, "the webhook configuration is back", isInPlace(t, guard, true))
	requireRecorded(t, "RegistrationDeleted", "DELETE")
	requireRecorded(t, "LeaseHeld", "UPDATE")
	harness.Eventually(t, "the guard leads again", func() (bool, any) {
		lease, err := harness.Clients(t).CoordinationV1().Leases(guardSpace).Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && *lease.Spec.HolderIdentity != "mallory", lease.Spec
	})
}

// While another client renews the lease for ever, no replica leads. Any of them registers itself, and repairs. A webhook
// configuration that a finalizer holds in deletion is made anew.
func TestAnyReplicaRepairsWhereNoneLeads(t *testing.T) {
	harness.Take(t)
	keepLease(t)
	guard := harness.StartGuard(t, "--leader-elect")
	patchRegistration(t, `{"metadata":{"finalizers":["example.com/hold"]}}`)
	deleteRegistration(t)
	harness.Eventually(t, "the gauge tells of it", func() (bool, any) {
		value := gauge(t, guard)
		return value == 0, value
	})
	harness.Eventually(t, "it is repaired", func() (bool, any) {
		live, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && live.DeletionTimestamp == nil && len(live.Finalizers) == 0 && gauge(t, guard) == 1, live
	})
	requireRecorded(t, "RegistrationDeleted", "DELETE")
}

// holdLease names another holder in the lease of the guards, which it makes if there is none.
func holdLease(ctx context.Context, t *testing.T, seconds int32) error {
	t.Helper()
	now := metav1.NowMicro()
	lease, err := json.Marshal(coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: guardian.WebhookConfiguration},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("mallory"), LeaseDurationSeconds: new(seconds), AcquireTime: &now, RenewTime: &now,
			LeaseTransitions: new(int32(math.MaxInt32)),
		},
	})
	if err != nil {
		return err
	}
	_, err = harness.Clients(t).CoordinationV1().Leases(guardSpace).Patch(ctx, guardian.WebhookConfiguration, types.ApplyPatchType, lease,
		metav1.PatchOptions{FieldManager: "mallory", Force: new(true)})
	return err
}

// keepLease holds the lease again and again until the test ends.
func keepLease(t *testing.T) {
	t.Helper()
	_, err := harness.Clients(t).CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: guardSpace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	must(t)(nil, holdLease(t.Context(), t, 15))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() {
		for ctx.Err() == nil {
			_ = holdLease(ctx, t, 15) // the next attempt is near
			time.Sleep(200 * time.Millisecond)
		}
	})
}

func deleteRegistration(t *testing.T) {
	t.Helper()
	must(t)(nil, harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(t.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{}))
}

func patchRegistration(t *testing.T, patch string) {
	t.Helper()
	must(t)(harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Patch(t.Context(), guardian.WebhookConfiguration, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
}

func isRegistered(t *testing.T) func() (bool, any) {
	t.Helper()
	registrations := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	return func() (bool, any) {
		_, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil, err
	}
}

// isInPlace checks that the webhook configuration exists, or that it does not, and that the guard's gauge agrees.
func isInPlace(t *testing.T, guard *testbed.Guard, want bool) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		registered, err := isRegistered(t)()
		value := gauge(t, guard)
		return registered == want && (value == 1) == want, fmt.Sprintf("registered %t (%v), gauge %v", registered, err, value)
	}
}

func gauge(t *testing.T, guard *testbed.Guard) float64 {
	t.Helper()
	value, err := guard.Metric(t.Context(), inPlaceGauge)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// requireRecorded wants a record of tampering, and an Event that leads to it.
func requireRecorded(t *testing.T, reason string, operation admissionv1.Operation) {
	t.Helper()
	store := harness.Records(t)
	harness.Eventually(t, "a record says "+reason, func() (bool, any) {
		records, err := store.List(t.Context(), audit.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			spec := record.Spec
			if spec.Outcome == v1alpha1.Tampered && spec.Reason == reason && spec.Operation == operation && spec.User.Name == "" {
				return true, nil
			}
		}
		return false, fmt.Sprintf("%d records without it", len(records))
	})
	harness.Eventually(t, "an Event says "+reason, func() (bool, any) {
		events, err := harness.Clients(t).EventsV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if event.Reason == reason && event.Action == string(v1alpha1.Tampered) {
				return true, nil
			}
		}
		return false, fmt.Sprintf("%d Events without it", len(events.Items))
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/status"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

type configuration = admissionregistrationv1.ValidatingWebhookConfiguration

// Each way to lose protection has its own cause, in status and, while the guard runs, in the metric.
func TestLostProtectionIsToldApart(t *testing.T) {
	const owner = "owner-of-the-registration"
	world := take(t)
	roles := harness.Clients(t).RbacV1().ClusterRoles()
	if _, err := roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: owner}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	guard := startGuard(t, drift.ReportOnly, "--proof-interval=1s", "--owner-clusterrole="+owner)
	isProved := func(want float64) {
		t.Helper()
		for _, object := range world.Objects() {
			harness.Eventually(t, "the guard proves "+object.String(), func() (bool, any) {
				log, err := guard.Metric(t.Context(), `apigw_guardian_protected{resource="`+object.String()+`"}`)
				return log == want, err
			})
		}
	}
	isProved(1)
	if got := read(t, world, world.Role); got.GetResourceVersion() != world.Role.Live.GetResourceVersion() {
		t.Error("a proof was stored")
	}
	requireState(t, verify.Protected, "")
	registrations := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	registered, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := roles.Delete(t.Context(), owner, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.RemoveRegistration(t)
	isProved(0)
	requireState(t, verify.Open, "")
	guard.Kill()

	other := httptest.NewTLSServer(nil)
	defer other.Close()
	registered.OwnerReferences = nil
	for cause, edit := range map[verify.Cause]func(*admissionregistrationv1.ValidatingWebhook){
		verify.Rewritten: func(w *admissionregistrationv1.ValidatingWebhook) {
			w.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{stranger: "x"}}
		},
		verify.WrongCA:     func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.URL = new(other.URL + "/validate") },
		verify.Unreachable: func(*admissionregistrationv1.ValidatingWebhook) {}, // the guard is dead
	} {
		register(t, registered, edit)
		want := verify.Locked
		if cause == verify.Rewritten {
			want = verify.Open
		}
		requireState(t, want, cause)
	}
	harness.RemoveRegistration(t)
}

// register creates the webhook configuration with an edit of each webhook.
func register(t *testing.T, registered *configuration, edit func(*admissionregistrationv1.ValidatingWebhook)) {
	t.Helper()
	harness.RemoveRegistration(t)
	edited := registered.DeepCopy()
	edited.ResourceVersion, edited.UID = "", ""
	for i := range edited.Webhooks {
		edit(&edited.Webhooks[i])
	}
	_, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), edited, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// requireState waits until status tells the state and, unless empty, the cause of each resource: the API server takes up a webhook
// configuration with a delay.
func requireState(t *testing.T, want verify.State, cause verify.Cause) {
	t.Helper()
	harness.Eventually(t, "status tells "+string(want)+" "+string(cause), func() (bool, any) {
		ran, got := harness.Run(t, "status", "-o", "json"), status.Report{}
		ran.Into(t, &got)
		for _, p := range got.Protections {
			if p.State != want || p.Cause != cause || p.Remedy == "" {
				return false, ran
			}
		}
		isRight := got.Protection == want && got.Protected == (want == verify.Protected) && (cause == "" || len(got.Protections) == 4 || cause == verify.NoPolicy && len(got.Protections) == 1)
		return isRight && (ran.Code == 0) == (got.Authorized && got.Protected), ran
	})
}

// A guard that hangs keeps each write for 5 s. status and verify try them at the same time; the harness kills what takes two minutes.
func TestAHungGuardIsLockedAndDoesNotHoldUpVerify(t *testing.T) {
	_, guard := start(t, drift.ReportOnly)
	if err := guard.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = guard.Signal(syscall.SIGCONT) }()
	requireState(t, verify.Locked, verify.NoAnswer)
	harness.Run(t, "verify").Require(t, 3, "the guard did not answer")
}

// A guard that observes is named, and does not revert what it allows.
func TestAGuardThatObservesIsNamed(t *testing.T) {
	world, _ := start(t, drift.Heal, "--mode=observe")
	requireState(t, verify.Observed, verify.Allowed)
	tamper(t, world, merged("", role, "", `{"metadata":{"labels":{"`+stranger+`":"x"}}}`).write(world))
	f := awaitFinding(t, world.Role, "the drift is held", func(f drift.Finding) bool { return f.Held != "" })
	if paths := driftOf(t, world, world.Role); len(paths) != 1 || f.Manager != tamperer {
		t.Errorf("got %v, %+v", paths, f)
	}
}

// The deletion of the owner, which no policy can keep from helm, ends the webhook configuration. A guard that runs on takes another owner.
func TestAGuardThatRunsOnReplacesItsOwner(t *testing.T) {
	take(t)
	roles := harness.Clients(t).RbacV1().ClusterRoles()
	for _, name := range []string{"owner", "owner-registration"} {
		if _, err := roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	since := time.Now().Add(-time.Second)
	startGuard(t, drift.ReportOnly, "--proof-interval=1s", "--owner-clusterrole=owner")
	isOwner := func(name string) {
		t.Helper()
		harness.Eventually(t, name+" owns the webhook configuration", func() (bool, any) {
			live, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
				Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
			return err == nil && len(live.OwnerReferences) == 1 && live.OwnerReferences[0].Name == name, err
		})
	}
	isOwner("owner")
	if err := roles.Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	isOwner("owner-registration")
	requireState(t, verify.Protected, "")
	found := records(t, v1alpha1.Tampered, nil, since)
	if len(found) != 1 || found[0].Spec.Reason != audit.RegistrationDeleted {
		t.Errorf("got records %+v", found)
	}
	if err := roles.Delete(t.Context(), "owner-registration", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "--for=delete", "validatingwebhookconfiguration/"+guardian.WebhookConfiguration, "--timeout=1m")
}

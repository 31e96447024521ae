// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// kubectl runs kubectl as the admin.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := harness.Of(t).Cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %q: %v\n%s%s", args, err, stdout, stderr)
	}
	return stdout
}

func reservation(t *testing.T) *v1alpha1.Reservation {
	t.Helper()
	found := &v1alpha1.Reservation{}
	if err := json.Unmarshal([]byte(kubectl(t, "get", "reservation", "apigw-ingress", "-o", "json")), found); err != nil {
		t.Fatal(err)
	}
	return found
}

func awaitReservation(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "the reservation is there", func() (bool, any) {
		_, _, err := harness.Of(t).Cluster.Kubectl(t.Context(), "get", "reservation", "apigw-ingress")
		return err == nil, err
	})
}

// await waits with kubectl for a state of a condition, and then for its reason.
func await(t *testing.T, kind string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	kubectl(t, "wait", "--for=condition="+kind+"="+string(status), "reservation/apigw-ingress", "--timeout=1m")
	harness.Eventually(t, kind+" is "+string(status)+" "+reason, func() (bool, any) {
		found := meta.FindStatusCondition(reservation(t).Status.Conditions, kind)
		return found != nil && found.Status == status && found.Reason == reason && !found.LastTransitionTime.IsZero(), found
	})
}

// Each condition goes through each of its states, and kubectl waits for it.
func TestTheReservationShowsEachState(t *testing.T) {
	world := take(t)
	client := harness.Clients(t)
	guard := startGuard(t, drift.ReportOnly, "--proof-interval=1s")
	awaitReservation(t)
	await(t, v1alpha1.ConditionProtected, metav1.ConditionTrue, string(verify.Protected))
	await(t, v1alpha1.ConditionAuthorized, metav1.ConditionTrue, "Present")
	await(t, v1alpha1.ConditionInSync, metav1.ConditionTrue, "AsManifest")
	await(t, v1alpha1.ConditionRetired, metav1.ConditionFalse, "NotRetired")
	await(t, v1alpha1.ConditionTokenCleanup, metav1.ConditionFalse, "NotDue")
	await(t, v1alpha1.ConditionPrivateNetworkReady, metav1.ConditionUnknown, "Unknown")
	if spec := reservation(t).Spec; spec.Owner != "API Gateway" || len(spec.Resources) != 4 || spec.Resources[3].NamePrefix != "apigw-ingress-token-" {
		t.Errorf("got spec %+v", spec)
	}

	// A user who writes the status or the spec gains nothing, and the leader writes both anew.
	kubectl(t, "patch", "reservation", "apigw-ingress", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[`+
		`{"type":"Retired","status":"True","reason":"X","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`)
	kubectl(t, "patch", "reservation", "apigw-ingress", "--type=merge", "-p", `{"spec":{"owner":"mallory"}}`)

	tamper(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`))
	await(t, v1alpha1.ConditionInSync, metav1.ConditionFalse, audit.Differs)
	await(t, v1alpha1.ConditionAuthorized, metav1.ConditionTrue, "Present")
	tamper(t, world, scenario.Delete(world.Binding))
	await(t, v1alpha1.ConditionAuthorized, metav1.ConditionFalse, audit.Absent)
	harness.Run(t, "authorize", "--repair", "--private-network=skip").Require(t, 0)
	await(t, v1alpha1.ConditionInSync, metav1.ConditionTrue, "AsManifest")
	await(t, v1alpha1.ConditionAuthorized, metav1.ConditionTrue, "Present")
	await(t, v1alpha1.ConditionRetired, metav1.ConditionFalse, "NotRetired")
	if got := reservation(t).Spec.Owner; got != "API Gateway" {
		t.Errorf("the owner is %q", got)
	}

	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes-intranet"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 443}},
	}}
	service, err := client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Services("default").Delete(context.WithoutCancel(t.Context()), service.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	await(t, v1alpha1.ConditionPrivateNetworkReady, metav1.ConditionFalse, "Fail")
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.9"}}
	if _, err := client.CoreV1().Services("default").UpdateStatus(t.Context(), service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, v1alpha1.ConditionPrivateNetworkReady, metav1.ConditionTrue, "Pass")

	unlock := &v1alpha1.Unlock{}
	harness.Run(t, "unlock", "--reason", "a test changes it on purpose", "-o", "json").Require(t, 0).Into(t, unlock)
	harness.Eventually(t, "the unlock is shown", func() (bool, any) {
		shown := reservation(t).Status.Unlocks
		return len(shown) == 1 && shown[0] == unlock.Name, shown
	})
	harness.Run(t, "lock", unlock.Name).Require(t, 0)

	// A new leader counts the denials.
	if answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role)); err != nil || answer.Code != 403 {
		t.Fatalf("got %d %v", answer.Code, err)
	}
	guard.Stop()
	startGuard(t, drift.ReportOnly, "--proof-interval=1s", "--mode=observe")
	await(t, v1alpha1.ConditionProtected, metav1.ConditionFalse, string(verify.Observed))
	if status := reservation(t).Status; status.Denials24h == nil || *status.Denials24h < 1 || status.LastDenial == nil {
		t.Errorf("got %+v", status)
	}
}

// noRegistration denies every creation of a webhook configuration. The API server exempts these from webhooks, and not from policies.
const noRegistration = `{"apiVersion":"v1","kind":"List","items":[
{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":"no-registration"},"spec":{
"matchConstraints":{"resourceRules":[{"apiGroups":["admissionregistration.k8s.io"],"apiVersions":["v1"],
"resources":["validatingwebhookconfigurations"],"operations":["CREATE"]}]},"validations":[{"expression":"false"}]}},
{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":"no-registration"},
"spec":{"policyName":"no-registration","validationActions":["Deny"]}}]}`

// The loss of the webhook configuration is shown within the interval of the proof, and so is a retirement.
func TestTheReservationShowsALossAndARetirement(t *testing.T) {
	take(t)
	startGuard(t, drift.ReportOnly, "--proof-interval=1s")
	awaitReservation(t)
	await(t, v1alpha1.ConditionProtected, metav1.ConditionTrue, string(verify.Protected))
	harness.Run(t, "retire", "--reason", "a test retires it", "--yes").Require(t, 0)
	await(t, v1alpha1.ConditionRetired, metav1.ConditionTrue, string(lookup.Retired))
	await(t, v1alpha1.ConditionAuthorized, metav1.ConditionFalse, string(lookup.Retired))
	await(t, v1alpha1.ConditionInSync, metav1.ConditionTrue, string(lookup.Retired))

	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(noRegistration), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", file)
	t.Cleanup(func() {
		if _, says, err := harness.Of(t).Cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "-f", file); err != nil {
			t.Error(err, says)
		}
	})
	harness.Eventually(t, "the policy is in effect", func() (bool, any) {
		_, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(),
			&configuration{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil, err
	})
	harness.RemoveRegistration(t)
	await(t, v1alpha1.ConditionProtected, metav1.ConditionFalse, string(verify.NotRegistered))
}

// kubectlAfter runs kubectl while the test is cleaned up.
func kubectlAfter(t *testing.T, args ...string) {
	t.Helper()
	args = append(args, "--ignore-not-found")
	if _, says, err := harness.Of(t).Cluster.Kubectl(context.WithoutCancel(t.Context()), args...); err != nil {
		t.Error(err, says)
	}
}

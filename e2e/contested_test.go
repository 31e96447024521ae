// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// rewrites are what the policy of the test does to every write of a webhook configuration, as platforms do, and the fields.
var rewrites = []struct{ patch, path string }{
	{`JSONPatch{op: "replace", path: "/webhooks/0/failurePolicy", value: "Ignore"}`, "webhooks[0].failurePolicy"},
	{`JSONPatch{op: "add", path: "/webhooks/0/timeoutSeconds", value: 1}`, "webhooks[0].timeoutSeconds"},
	{
		`JSONPatch{op: "add", path: "/webhooks/0/namespaceSelector", value: Object.webhooks.namespaceSelector{matchExpressions: [` +
			`Object.webhooks.namespaceSelector.matchExpressions{key: "kubernetes.io/metadata.name", operator: "NotIn", values: ["kube-system"]}]}}`,
		"webhooks[0].namespaceSelector",
	},
	{
		`JSONPatch{op: "add", path: "/webhooks/2/objectSelector", value: Object.webhooks.objectSelector{matchLabels: {"a": "b"}}}`,
		"webhooks[2].objectSelector",
	},
	{`JSONPatch{op: "replace", path: "/webhooks/2/rules/0/operations", value: ["CREATE"]}`, "webhooks[2].rules[0].operations"},
	{`JSONPatch{op: "replace", path: "/webhooks/3/matchConditions/0/expression", value: "false"}`, "webhooks[3].matchConditions[0].expression"},
	{`JSONPatch{op: "add", path: "/webhooks/3/clientConfig/caBundle", value: ""}`, "webhooks[3].clientConfig.caBundle"},
}

// Admission that rewrites every write of the webhook configuration, as managed platforms do: the guard does not claim a repair, says
// which fields and that protection is partial, and repairs once the rewriting ends.
func TestARewrittenWebhookConfigurationIsNotCalledRepaired(t *testing.T) {
	harness.Needs(t, harness.Take(t).Cluster, "1.36.0") // MutatingAdmissionPolicies of version v1
	world := harness.World(t)
	guard := harness.StartGuard(t)
	rewriteRegistrations(t)
	harness.Eventually(t, "a write is rewritten", func() (bool, any) {
		patchRegistration(t, `{"metadata":{"annotations":{"example.com/poke":"1"}}}`)
		live, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		problem := live.Annotations[guardian.RegistrationProblemAnnotation]
		for _, rewrite := range rewrites {
			if !strings.Contains(problem, rewrite.path) {
				return false, fmt.Sprintf("problem %q lacks %s", problem, rewrite.path)
			}
		}
		return strings.Contains(problem, "protection is partial"), problem
	})
	if inPlace, ready, protected := gauge(t, guard), probeOf(guard, "/readyz"), probeOf(guard, "/protectedz"); inPlace != 0 ||
		ready != http.StatusOK || protected == http.StatusOK {
		t.Errorf("in place: got %v, want 0; /readyz: got %d, want 200; /protectedz: got %d, want an error", inPlace, ready, protected)
	}
	if contested, err := guard.Metric(t.Context(), "apigw_guardian_registration_contested"); err != nil || contested != 1 {
		t.Errorf("contested: got %v, %v, want 1", contested, err)
	}
	if repairs, err := guard.Metric(t.Context(), `apigw_guardian_registration_repairs_total{operation="UPDATE"}`); err != nil || repairs != 0 {
		t.Errorf("repairs: got %v, %v, want 0", repairs, err)
	}
	requireRecorded(t, "RegistrationChanged", "UPDATE")
	harness.Run(t, "status").Require(t, 3, "Not protected", "the guard reports: admission in the API server rewrites the webhook configuration")
	answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Account).DryRun())
	if err != nil || answer.Code != http.StatusOK {
		t.Errorf("the test proves nothing: a dry-run in the excluded namespace got %d %s, %v", answer.Code, answer.Body, err)
	}

	removeRewriting(t)
	harness.Eventually(t, "the webhook configuration is repaired", isInPlace(t, guard, true))
	harness.Run(t, "status").Require(t, 0, "Protected")
	if protected := probeOf(guard, "/protectedz"); protected != http.StatusOK {
		t.Errorf("/protectedz: got %d, want 200", protected)
	}
}

func probeOf(guard *testbed.Guard, path string) int {
	code, _ := harness.Get(guard.ProbesURL() + path)
	return code
}

const rewriting = "rewrite-registrations"

// rewriteRegistrations makes a policy that rewrites every webhook configuration, until the test ends.
func rewriteRegistrations(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { removeRewriting(t) })
	rule := admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{"admissionregistration.k8s.io"}, APIVersions: []string{"v1"},
			Resources: []string{"validatingwebhookconfigurations"},
		},
	}}
	policy := &admissionregistrationv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: rewriting}}
	policy.Spec.MatchConstraints = &admissionregistrationv1.MatchResources{
		ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{rule},
	}
	policy.Spec.ReinvocationPolicy = admissionregistrationv1.NeverReinvocationPolicy
	for _, rewrite := range rewrites {
		policy.Spec.Mutations = append(policy.Spec.Mutations, admissionregistrationv1.Mutation{
			PatchType: admissionregistrationv1.PatchTypeJSONPatch,
			JSONPatch: &admissionregistrationv1.JSONPatch{Expression: "[" + rewrite.patch + "]"},
		})
	}
	client := harness.Clients(t).AdmissionregistrationV1()
	must(t)(client.MutatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}))
	binding := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: rewriting}}
	binding.Spec.PolicyName = rewriting
	must(t)(client.MutatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}))
}

func removeRewriting(t *testing.T) {
	t.Helper()
	client, ctx := harness.Clients(t).AdmissionregistrationV1(), context.WithoutCancel(t.Context())
	_ = client.MutatingAdmissionPolicyBindings().Delete(ctx, rewriting, metav1.DeleteOptions{}) // it may be gone
	_ = client.MutatingAdmissionPolicies().Delete(ctx, rewriting, metav1.DeleteOptions{})
}

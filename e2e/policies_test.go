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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// startPolicies applies what `apigw-guardian policy` prints until the test ends, and waits for the last policy to deny.
func startPolicies(t *testing.T, world *scenario.World) {
	t.Helper()
	applyPolicies(t)
	for _, object := range world.Objects() {
		awaitPolicy(t, world, object)
	}
}

func awaitPolicy(t *testing.T, world *scenario.World, object *scenario.Object) {
	t.Helper()
	harness.Eventually(t, object.String()+" is protected by its policy", func() (bool, any) {
		answer, err := world.Guarded.Do(t.Context(), scenario.Delete(object).DryRun())
		return err == nil && isDeniedByPolicy(object, answer), string(answer.Body)
	})
}

func applyPolicies(t *testing.T, flags ...string) {
	t.Helper()
	var list unstructured.UnstructuredList
	harness.Run(t, append([]string{"policy", "-o", "json"}, flags...)...).Require(t, 0).Into(t, &list)
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range list.Items {
		kinds := client.Resource(schema.GroupVersionResource{
			Group: "admissionregistration.k8s.io", Version: "v1",
			Resource: strings.Replace(strings.ToLower(object.GetKind())+"s", "policys", "policies", 1),
		})
		t.Cleanup(func() {
			if err := kinds.Delete(context.WithoutCancel(t.Context()), object.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
		must(t)(kinds.Create(t.Context(), &object, metav1.CreateOptions{}))
	}
}

func isDeniedByPolicy(object *scenario.Object, answer scenario.Answer) bool {
	status := answer.Status()
	name := "apigw-guardian-" + object.GVR.Resource
	return status.Code == http.StatusForbidden && status.Reason == metav1.StatusReasonForbidden &&
		strings.Contains(status.Message, fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: ", name, name))
}

// TestPoliciesJudgeEveryWriteForm judges the cells of TestEveryWriteFormByEveryIdentity by the policies alone, with no exception.
func TestPoliciesJudgeEveryWriteForm(t *testing.T) {
	bed := harness.Take(t)
	harness.Needs(t, bed.Cluster, "1.30.0")
	world := harness.World(t)
	startPolicies(t, world)
	cells := playMatrix(t, world)
	said := annotationsByAuditID(t)
	denied := 0
	for _, c := range cells {
		if c.reason != "" {
			denied++
		}
		requirePolicyCell(t, c, said[c.answer.AuditID])
	}
	requireUntouched(t, world)
	requireImported(t)
	harness.Run(t, "verify").Require(t, 0)
	var status struct{ Protected bool }
	harness.Run(t, "status", "-o", "json").Into(t, &status)
	if !status.Protected {
		t.Error("status does not see the protection by policies")
	}
	report.Line(t, "R1, engine policy: %d cells asserted (%d denied, %d allowed) on Kubernetes %s",
		len(cells), denied, len(cells)-denied, bed.Cluster.Version())
}

func requirePolicyCell(t *testing.T, c *cell, said map[string]string) {
	t.Helper()
	switch {
	case c.reason != "" && !isDeniedByPolicy(c.object, c.answer):
		t.Errorf("%s: got %d %s, want a denial by the policy", c.name, c.answer.Code, c.answer.Body)
	case c.reason == "" && c.answer.Code >= http.StatusBadRequest && c.answer.Code != http.StatusConflict:
		t.Errorf("%s: got %d %s, want it allowed", c.name, c.answer.Code, c.answer.Body)
	case c.reason != "" && said["reason"] != c.reason:
		t.Errorf("%s: got reason %q, want %q", c.name, said["reason"], c.reason)
	case c.reason == "" && !c.isUnseen && !c.isGenerated && said["decision"] != "allow":
		t.Errorf("%s: the policy was not asked: %v", c.name, said)
	case (c.isUnseen || c.isGenerated) && len(said) > 0:
		t.Errorf("%s: the policy was asked: %v", c.name, said)
	}
}

// requireImported wants records of the denials, from the API server's audit log. Denied deletions have no dry-run among them.
func requireImported(t *testing.T) {
	t.Helper()
	var imported struct{ Stored int }
	harness.Run(t, "audit", "import", "--store", "-o", "json", harness.Of(t).Cluster.AuditLog()).Require(t, 0).Into(t, &imported)
	records, err := harness.Records(t).List(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]int64{}
	for _, record := range records {
		isOfMatrix := strings.Contains(record.Spec.Message, "apigw-ingress") && record.Spec.Source == v1alpha1.SourceImport
		if isOfMatrix && record.Spec.Outcome == v1alpha1.Denied && record.Spec.Message != "" {
			reasons[record.Spec.Reason] += record.Spec.Count
		}
	}
	// One stored write by each of 8 identities; see matrix. Each of the four resources is deleted in four forms.
	for reason, atLeast := range map[string]int64{"ReservedDelete": 4 * 4 * 8, "ReservedCreate": 4 * 8, "TokenMint": 8, "ReservedUpdate": 5 * 4 * 8} {
		if reasons[reason] < atLeast {
			t.Errorf("%d imported denials for %s, want %d: %v", reasons[reason], reason, atLeast, reasons)
		}
	}
}

// TestABackstopDecidesWhileTheWebhookIsWeak also shows what a backstop cannot: without a webhook configuration there is no parameter.
func TestABackstopDecidesWhileTheWebhookIsWeak(t *testing.T) {
	bed := harness.Take(t)
	harness.Needs(t, bed.Cluster, "1.30.0")
	world := harness.World(t)
	applyPolicies(t, "--backstop")
	guard := harness.StartGuard(t)
	harness.Eventually(t, "the guard denies", harness.Denies(t, world))
	answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
	if err != nil || !strings.Contains(answer.Status().Message, `"clusterroles.apigw-guardian.io" denied the request`) {
		t.Errorf("got %v %s, want the denial of the webhook", err, answer.Body)
	}
	guard.Kill() // it would restore its webhook configuration
	webhooks := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	live, err := webhooks.Get(t.Context(), "apigw-guardian", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range live.Webhooks {
		live.Webhooks[i].FailurePolicy = new(admissionregistrationv1.Ignore)
	}
	must(t)(webhooks.Update(t.Context(), live, metav1.UpdateOptions{}))
	for _, object := range world.Objects() {
		awaitPolicy(t, world, object)
	}
	harness.RemoveRegistration(t)
	harness.Eventually(t, "nothing denies", func() (bool, any) {
		answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
		return err == nil && answer.Code == http.StatusOK, string(answer.Body)
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// Where policies decide, the controller restores what was written past them, publishes the reservation, and registers no webhook.
func TestTheControllerLooksAfterPolicies(t *testing.T) {
	world := take(t)
	bed := harness.Of(t)
	file := filepath.Join(t.TempDir(), "policies.yaml")
	printed := harness.Run(t, "policy").Require(t, 0).Stdout
	if err := os.WriteFile(file, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { kubectlAfter(t, "delete", "-f", file) })
	controller, err := bed.Cluster.StartProgram(t.Context(), testbed.Program{Name: "controller", Path: bed.Program, Args: []string{
		"controller", "--kubeconfig=" + bed.Cluster.Kubeconfig(), "--probe-listen=0", "--metrics-listen=0",
		"--drift=" + string(drift.Heal), "--proof-interval=1s",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(controller.Stop)
	awaitReservation(t)
	await(t, v1alpha1.ConditionProtected, metav1.ConditionTrue, string(verify.Protected))
	await(t, v1alpha1.ConditionInSync, metav1.ConditionTrue, "AsManifest")
	requireState(t, verify.Protected, "")

	since := time.Now().Add(-time.Second)
	tamper(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`))
	tamper(t, world, scenario.Delete(world.Binding))
	harness.Eventually(t, "both are restored", inSync(t, world, world.Role, world.Binding))
	harness.Eventually(t, "the drift is recorded, with the field manager", func() (bool, any) {
		found := records(t, v1alpha1.Drift, world.Role, since)
		return len(found) == 1 && found[0].Spec.Reason == audit.Differs, found
	})

	kubectl(t, "delete", "validatingadmissionpolicybinding", "apigw-guardian-clusterroles")
	await(t, v1alpha1.ConditionProtected, metav1.ConditionFalse, string(verify.NoPolicy))
	requireState(t, verify.Open, verify.NoPolicy)
	if _, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{}); err == nil {
		t.Error("the controller has registered a webhook")
	}
}

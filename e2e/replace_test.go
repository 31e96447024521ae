// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

// To keep a change, an administrator changes the manifest. The steps are those of docs/operations.md.
func TestAChangedManifestIsAppliedAndProtected(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	original, err := os.ReadFile("../charts/apigw-guardian/files/apigw-ingress.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const verbs, changed = `["get","list","watch"]`, `["get","list"]`
	content := strings.Replace(string(original), "        - watch\n", "", 1) // of the first rule
	if content == string(original) {
		t.Fatal("the manifest has no verb watch")
	}
	directory := directoryWith(t, "apigw-ingress.yaml", content)
	harness.StartGuard(t, "--reservations", directory)
	patch := func(value string) error {
		_, _, err := harness.Of(t).Cluster.Kubectl(t.Context(), "patch", "clusterrole", "apigw-ingress-clusterrole", "--type=json",
			`-p=[{"op":"replace","path":"/rules/0/verbs","value":`+value+`}]`)
		return err
	}
	if patch(`["get"]`) == nil {
		t.Error("a change towards neither manifest passed")
	}
	harness.Run(t, "status", "--reservations", directory).Require(t, 3, "rules")
	harness.Run(t, "authorize", "--repair", "--private-network", "skip", "--reservations", directory).Require(t, 0)
	harness.Run(t, "status", "--reservations", directory).Require(t, 0)
	if patch(verbs) == nil {
		t.Error("the original manifest could be restored")
	}
	if err := patch(changed); err != nil {
		t.Errorf("the new manifest is denied: %v", err)
	}
}

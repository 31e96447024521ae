// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// liveWithArgoCD syncs and deletes the chart by Argo CD's engine: as the chart's page says, and with the hooks, which Argo CD maps to
// PostSync and PreDelete. What the guard writes is in no diff.
func liveWithArgoCD(t *testing.T, n *node.Node) {
	t.Helper()
	program := harness.BuildModule(t, "../argocd", "github.com/argoproj/argo-cd/gitops-engine/v3")
	argocd := func(command, rendered string) string { return run(t, n, program, command, rendered, namespace) }
	createNamespace(t, n)
	for _, hooks := range []string{"hooks.enabled=false", "hooks.enabled=true"} {
		rendered := render(t, n, "--set", hooks)
		t.Logf("%s: the sync says:\n%s", hooks, argocd("sync", rendered))
		awaitProtection(t, n)
		argocd("sync", rendered) // nothing changes
		if differs := argocd("diff", rendered); differs != "" {
			t.Errorf("%s: after a sync, the diff is:\n%s", hooks, differs)
		}
		refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
		argocd("delete", rendered)
		requireUnlocked(t, n)
		if hooks == "hooks.enabled=false" {
			run(t, n, "sh", "-c", "PATH="+commands(t)+":$PATH; apigw-guardian uninstall --deployment "+namespace+"/apigw-guardian")
		}
		requireNoLeftovers(t, n)
		removeReserved(t, n)
	}
}

// requireNoDrift wants no object of the release to differ from what helm stored, by a dry-run of a server-side apply. Flux' helm-controller
// compares so: internal/action/diff.go of v1.4.0, the newest version that the module proxy serves. It runs the actions of helm 3.
func requireNoDrift(t *testing.T, n *node.Node, helm string) {
	t.Helper()
	manifest := write(t, run(t, n, helm, "get", "manifest", release, "--namespace", namespace))
	live := objects(t, run(t, n, "kubectl", "get", "--filename", manifest, "--output=json"))
	applied := objects(t, run(t, n, "kubectl", "apply", "--server-side", "--dry-run=server", "--force-conflicts",
		"--field-manager=helm-controller", "--filename", manifest, "--output=json"))
	if diff := cmp.Diff(live, applied); diff != "" {
		t.Errorf("drift: -live +applied:\n%s", diff)
	}
}

// objects returns the objects of a list, without what each write changes.
func objects(t *testing.T, list string) []map[string]any {
	t.Helper()
	var parsed struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(list), &parsed); err != nil {
		t.Fatal(err)
	}
	for _, object := range parsed.Items {
		delete(object, "status")
		for _, field := range []string{"managedFields", "resourceVersion"} {
			unstructured.RemoveNestedField(object, "metadata", field)
		}
	}
	return parsed.Items
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// changeTrust changes the source of the serving certificate while forbidden writes go on: none may fail. cert-manager's controllers issue.
// Then no node has the image of the uninstall Job.
func changeTrust(t *testing.T, n *node.Node) {
	t.Helper()
	const module = "github.com/cert-manager/cert-manager"
	crds := filepath.Join(harness.ModuleDir(t, "../certmanager", module), "deploy", "crds")
	run(t, n, "kubectl", "apply", "--server-side", "--filename", crds)
	run(t, n, "kubectl", "wait", "--for=condition=Established", "crd/certificates.cert-manager.io", "--timeout=1m")
	controllers, err := n.StartProgram(t.Context(), testbed.Program{
		Name: "certmanager", Path: harness.BuildModule(t, "../certmanager", module), Env: []string{"KUBECONFIG=" + n.Kubeconfig()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(controllers.Stop)

	run(t, n, "helm", upgrade("--wait", "--create-namespace")...)
	l := underLoad(t, n, func() {
		for _, mode := range []string{"cert-manager", "provided,certs.secretName=apigw-guardian-serving", "builtin,webhook.port=443"} {
			run(t, n, "helm", upgrade("--wait", "--set", "certs.mode="+mode)...)
			rolloutStatus(t, n)
		}
	})
	t.Logf("from builtin to cert-manager, provided and builtin: %s", l)
	uninstallWithoutImage(t, n)
	removeReserved(t, n)
	run(t, n, "kubectl", "delete", "namespace", namespace, "--timeout=1m") // cert-manager leaves its Secret
}

// uninstallWithoutImage uninstalls a release whose uninstall Job cannot run. It ends at the deadline of the Job, and what the notes of the
// release say then works.
func uninstallWithoutImage(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "helm", upgrade("--no-hooks", "--set", "image.tag=nosuch,jobs.activeDeadlineSeconds=10")...)
	says := refuse(t, n, "apigw-guardian-uninstall", "helm", uninstall()...)
	t.Logf("helm says on the terminal:\n%s", says)
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	notes := run(t, n, "helm", "get", "notes", release, "--namespace", namespace)
	const prefix = "  helm uninstall " + release + " --namespace " + namespace
	if !strings.Contains(notes, prefix+" --no-hooks\n") {
		t.Errorf("the notes do not name --no-hooks:\n%s", notes)
	}
	run(t, n, "helm", uninstall("--no-hooks")...)
	requireUnlocked(t, n)
}

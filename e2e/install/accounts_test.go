// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// requireHarmlessAccounts tries, with the real tokens of the accounts of hooks, what an attacker who held them would.
func requireHarmlessAccounts(t *testing.T, n *node.Node) {
	t.Helper()
	anybody := [][]string{
		{"create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--serviceaccount=" + namespace + ":default"},
		{"create", "clusterrole", "mine", "--verb=*", "--resource=secrets"},
		{"patch", "clusterrolebinding", "cluster-admin", "--type=json", `-p=[{"op":"remove","path":"/subjects"}]`},
		{"patch", "clusterrole", role, "--type=json", `-p=[{"op":"add","path":"/rules/-","value":{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}}]`},
		{"-n", "kube-system", "get", "secrets"},
		{"-n", "kube-system", "create", "secret", "generic", "mine"},
		{"-n", "kube-system", "create", "token", account},
		{"-n", "kube-system", "create", "configmap", "mine"},
		{"-n", "kube-system", "patch", "configmap", "kube-root-ca.crt", "-p={}"},
		{"-n", namespace, "create", "configmap", "mine"},
		{"-n", namespace, "get", "secret", "apigw-guardian-ca"},
		{"-n", namespace, "create", "token", "apigw-guardian"},
		{"delete", "validatingwebhookconfiguration", "apigw-guardian"},
	}
	requireHarmless(t, n, "authorize", append(anybody,
		[]string{"patch", "clusterrole", "apigw-guardian-authorize", "--type=json", `-p=[{"op":"remove","path":"/rules/0/resourceNames"}]`}))
	requireHarmless(t, n, "verify", append(anybody,
		[]string{"patch", "clusterrole", "apigw-guardian-verify", "--type=json", `-p=[{"op":"remove","path":"/rules/0/resourceNames"}]`},
		[]string{"-n", "kube-system", "get", "secret", secret},
		[]string{"-n", "kube-system", "patch", "secret", secret, "-p={}"}))
}

// requireHarmless makes the attempts as the account of a hook, which one template has with all that it may do.
func requireHarmless(t *testing.T, n *node.Node, hook string, attempts [][]string) {
	t.Helper()
	grants := filepath.Join(t.TempDir(), "grants.yaml")
	rendered := run(t, n, "helm", "template", release, chart, "--namespace", namespace, "--show-only", "templates/"+hook+".yaml")
	workload := regexp.MustCompile(`(?m)^apiVersion: (batch/v1\nkind: Job|v1\nkind: Pod)$`).FindStringIndex(rendered)
	if err := os.WriteFile(grants, []byte(rendered[:workload[0]]), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, n, "kubectl", "apply", "-f", grants)
	token := strings.TrimSpace(run(t, n, "kubectl", "-n", namespace, "create", "token", "apigw-guardian-"+hook))
	as := func(args ...string) []string { return append([]string{"--token=" + token}, args...) }
	run(t, n, "kubectl", as("get", "clusterrole", role)...) // the token works
	for _, attempt := range attempts {
		refuse(t, n, "orbidden", "kubectl", as(attempt...)...)
	}
	run(t, n, "kubectl", "delete", "-f", grants)
}

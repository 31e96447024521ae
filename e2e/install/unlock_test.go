// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/e2e/program"
)

// unlockAsPrinted runs the second line of a denial, as a person copies it, with the guard's own permissions on its side.
func unlockAsPrinted(t *testing.T, n *node.Node) {
	t.Helper()
	shell := "PATH=" + commands(t) + ":$PATH; "
	change := []string{"patch", "clusterrole", role, "--type=json", `-p=[{"op":"replace","path":"/rules/2/verbs","value":["get"]}]`}
	said := refuse(t, n, denial, "kubectl", change...)
	_, command, found := strings.Cut(said, "\nTo change it on purpose, a cluster administrator runs: ")
	if !found {
		t.Fatalf("the denial names no command: %s", said)
	}
	run(t, n, "sh", "-c", shell+command)
	run(t, n, "kubectl", change...)
	if status, _, _ := try(t, n, "sh", "-c", shell+"apigw-guardian status"); !strings.Contains(status, "It was changed under unlock unlock-") {
		t.Errorf("status does not name the unlock: %s", status)
	}
	run(t, n, "sh", "-c", shell+`apigw-guardian lock "$(kubectl get unlocks -o jsonpath={.items[0].metadata.name})"`)
	run(t, n, "sh", "-c", shell+"apigw-guardian authorize --repair --private-network skip")
	refuse(t, n, denial, "kubectl", change...)
	run(t, n, "kubectl", "wait", "--for=jsonpath={.status.state}=Closed", "unlock", "--all", "--timeout=1m")
	if log := run(t, n, "kubectl", "-n", namespace, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1"); strings.Contains(log, "forbidden") {
		t.Errorf("the chart does not grant what the guard needs: %s", log)
	}
}

// commands returns a directory with the program.
func commands(t *testing.T) string {
	t.Helper()
	binary, remove, err := program.Build()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = remove() })
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "apigw-guardian")); err != nil {
		t.Fatal(err)
	}
	return dir
}

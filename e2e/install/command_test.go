// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// run runs a program in the node's network and returns what it prints to standard output.
func run(t *testing.T, n *node.Node, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(t, n, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s\n%s", name, strings.Join(args, " "), err, stdout, stderr, describe(t, n))
	}
	return stdout
}

// refuse wants a program to fail, and to say why. It returns what the program said.
func refuse(t *testing.T, n *node.Node, says, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(t, n, name, args...)
	if err == nil || !strings.Contains(stderr, says) {
		t.Errorf("%s %s: %v, want a refusal that says %q\n%s%s", name, strings.Join(args, " "), err, says, stdout, stderr)
	}
	return stderr
}

func try(t *testing.T, n *node.Node, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	command := n.Command(t.Context(), name, args...)
	var out, diagnostics bytes.Buffer
	command.Stdout, command.Stderr = &out, &diagnostics
	err = command.Run()
	return out.String(), diagnostics.String(), err
}

// describe shows what a person would look at first.
func describe(t *testing.T, n *node.Node) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"-n", namespace, "get", "pods,jobs", "-o", "wide"},
		{"-n", namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", namespace, "logs", "-l", "app.kubernetes.io/name=apigw-guardian", "--tail=30", "--prefix"},
	} {
		stdout, stderr, _ := try(t, n, "kubectl", args...) // it is shown as far as it comes
		all.WriteString(stdout + stderr)
	}
	return all.String()
}

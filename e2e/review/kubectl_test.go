// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// The same flags give the same lines in kubectl get denials and in audit list, but for their order.
func TestListPrintsWhatKubectlPrints(t *testing.T) {
	bed := harness.Take(t)
	noRecords(t)
	put(t, denial(time.Minute, nil))
	put(t, denial(2*time.Hour, func(f *audit.Event) { f.User.Name, f.Changed = `bob "x" $(y)`, []string{"a", "b"} }))
	ca := harness.Of(t).Cluster.AdminConfig().CAFile
	for _, line := range []string{
		"-o name",
		"-o name -A",
		"-o=name --request-timeout=5",
		`-o jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`,
		`-o jsonpath={range .items[*]}{.spec.count}{"\t"}{.spec.user.name}{"\n"}{end}`,
		`-o jsonpath={.items[?(@.spec.user.name=="alice")].spec.reason}`,
		"-o jsonpath={.kind}{.apiVersion}",
		"-o jsonpath={.items[*].spec.absent}",
		"-o custom-columns=NAME:.metadata.name,USER:.spec.user.name",
		"-o custom-columns=N:metadata.name,C:{.spec.count},NONE:.spec.absent",
		"-o custom-columns=CHANGED:.spec.changed,FIRST:.spec.changed[*],U:.metadata.uid --no-headers",
		"-o custom-columns=O:.spec.outcome,G:.spec.user.groups[*],T:.spec.lastTime",
		"-o name --as admin --as-group system:masters",
		"-o name --context absent",
		"-o name --cluster absent",
		"-o name --user absent",
		"-o name --server https://127.0.0.1:1",
		"-o name --token wrong --certificate-authority " + ca,
		"-o name --as nobody",
		"-o name --kubeconfig /absent",
		"-o name --as-group system:masters",
		"-o jsonpath=",
		"-o jsonpath={.items[",
		"-o custom-columns=",
		"-o custom-columns=A",
		"-o xml",
		"--absent",
	} {
		args := splitOutsideBraces(line)
		want, complaint, kubectlErr := bed.Cluster.Kubectl(t.Context(), append([]string{"get", "denials"}, args...)...)
		got := harness.Run(t, append([]string{"audit", "list"}, args...)...)
		if (kubectlErr != nil) != (got.Code != 0) {
			t.Errorf("%s: exit code %d; kubectl: %v %s", line, got.Code, kubectlErr, complaint)
		}
		if diff := cmp.Diff(linesOf(want), linesOf(got.Stdout)); diff != "" && got.Code == 0 {
			t.Errorf("%s: (-kubectl +audit list)\n%s", line, diff)
		}
	}
}

// splitOutsideBraces splits a command line at spaces that are in no template.
func splitOutsideBraces(line string) []string {
	depth := 0
	return strings.FieldsFunc(line, func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		}
		return r == ' ' && depth <= 0
	})
}

// linesOf sorts lines, and joins the fields of each: the padding depends on nothing else.
func linesOf(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(lines)
	return lines
}

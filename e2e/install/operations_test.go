// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// liveByTheDocument runs the commands of docs/operations.md as it shows them, each in its situation.
func liveByTheDocument(t *testing.T, n *node.Node) {
	t.Helper()
	shell := "PATH=" + commands(t) + ":$PATH; "
	follow := func(heading string, flags ...string) string {
		t.Helper()
		var printed strings.Builder
		for _, command := range underHeading(t, heading) {
			printed.WriteString(run(t, n, "sh", "-c", shell+strings.Join(append([]string{command}, flags...), " ")))
		}
		return printed.String()
	}
	switchOff := func(situation string) {
		t.Helper()
		run(t, n, "sh", "-c", shell+inSituation(t, situation))
		requireUnlocked(t, n)
	}

	for range 2 { // an install, and an upgrade
		for _, command := range underHeading(t, "Install and upgrade") {
			if strings.Contains(command, "upgrade") {
				command += " " + strings.Join(settings(), " ")
			}
			run(t, n, "sh", "-c", shell+"cd ../.. && "+command)
		}
	}
	if printed := follow("The guard is down"); strings.Count(printed, "Running") != 2 {
		t.Errorf("two replicas run, and the page's commands print: %s", printed)
	}
	follow("The certificate has expired")
	run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
	refuse(t, n, "apigw-guardian-registration", "kubectl", "annotate", "validatingwebhookconfiguration", "apigw-guardian", "--overwrite", "a=b")
	follow("Who changed the webhook configuration?")

	// No terminal is here that could ask for a confirmation.
	follow("The token leaked", "--yes")
	follow("Retire everything", "--yes")
	run(t, n, "sh", "-c", shell+"apigw-guardian authorize --again --private-network skip")
	awaitDenial(t, n)

	switchOff("installed with helm")
	_, on, _ := strings.Cut(section(t, "Switch it off now"), "To switch it on again:")
	run(t, n, "sh", "-c", inline.FindStringSubmatch(on)[1])
	run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
	awaitProtection(t, n)
	switchOff("installed by a GitOps tool")

	// The guard is gone, and its registration is not. The upgrade has created the binding of the policy again.
	run(t, n, "helm", upgrade("--wait")...)
	run(t, n, "kubectl", "get", "validatingadmissionpolicybinding", "apigw-guardian-registration")
	stopGuard(t, n)
	switchOff("the guard is down")
	run(t, n, "helm", uninstall()...)
	removeReserved(t, n)
}

var inline = regexp.MustCompile("`([^`]+)`")

// section returns what docs/operations.md has under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/operations.md has no heading %q", heading)
	}
	text, _, _ := strings.Cut(after, "\n## ")
	return text
}

// underHeading returns the indented commands under a heading.
func underHeading(t *testing.T, heading string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(section(t, heading)) {
		if command, indented := strings.CutPrefix(line, "    "); indented {
			found = append(found, strings.TrimSuffix(command, "\n"))
		}
	}
	if len(found) == 0 {
		t.Fatalf("docs/operations.md has no command under %q", heading)
	}
	return found
}

// inSituation returns the command in a row of the table under "Switch it off now". "The same command" is that of the first row.
func inSituation(t *testing.T, situation string) string {
	t.Helper()
	first := ""
	for line := range strings.Lines(section(t, "Switch it off now")) {
		cells := strings.Split(line, " | ")
		if len(cells) != 2 || !strings.Contains(cells[1], "`") {
			continue
		}
		command := inline.FindStringSubmatch(cells[1])[1]
		if first == "" {
			first = command
		}
		if cells[0] == "| "+situation {
			if strings.Contains(cells[1], "the same command") {
				return first
			}
			return command
		}
	}
	t.Fatalf("docs/operations.md names no situation %q", situation)
	return ""
}

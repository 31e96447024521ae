// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/records"
)

func TestWrongUsageSaysWhatIsAllowed(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"an operation that is none":  {[]string{"list", "--operation", "PATCH"}, "give CREATE, UPDATE or DELETE"},
		"an outcome that is none":    {[]string{"list", "--outcome", "denyed"}, "give Denied, WouldDeny, Unlocked, Restored, Allowed, Unguarded or Tampered"},
		"a reason that is none":      {[]string{"list", "--reason", "Because"}, "give ReservedUpdate, ReservedDelete"},
		"a time that is none":        {[]string{"list", "--since", "yesterday"}, "give how long ago (30m, 24h, 7d"},
		"a time to come":             {[]string{"list", "--until", "-5m"}, "give how long ago"},
		"since after until":          {[]string{"list", "--since", "1h", "--until", "2h"}, "--since 1h is after --until 2h"},
		"a limit below zero":         {[]string{"list", "--limit", "-1"}, "give a number above zero"},
		"a limit that is no number":  {[]string{"list", "--limit", "many"}, "--limit"},
		"an output that is none":     {[]string{"list", "-o", "xml"}, "must be table, json, yaml, wide, csv or"},
		"an output of another":       {[]string{"summary", "-o", "csv"}, "must be table, json, yaml or"},
		"a watch in YAML":            {[]string{"list", "--watch", "-o", "yaml"}, "--watch goes with -o table, wide or json"},
		"a format that is none":      {[]string{"export", "--format", "xml"}, "give jsonl, csv, ocsf or cloudevents"},
		"a filter of export":         {[]string{"export", "--outcome", "x"}, "give Denied"},
		"a filter of summary":        {[]string{"summary", "--since", "x"}, "give how long ago"},
		"a command that is not here": {[]string{"lsit"}, "did you mean list?"},
		"an argument too many":       {[]string{"list", "all"}, "takes no argument"},
	} {
		t.Run(name, func(t *testing.T) { guardian(t, append([]string{"audit"}, test.args...)...).require(t, 2, test.says) })
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	for _, command := range []string{"list", "show", "summary", "export"} {
		guardian(t, "audit", command, "-h").require(t, 0, "Examples:\n", "apigw-guardian audit "+command)
	}
}

// readers is every command that reads records.
func readers() map[string][]string {
	return map[string][]string{
		"list": {"audit", "list"}, "watch": {"audit", "list", "--watch"}, "show": {"audit", "show", "a"}, "summary": {"audit", "summary"},
		"export": {"audit", "export"},
	}
}

func TestAKubeconfigThatCannotBeReadIsNamed(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("not: [a kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range readers() {
		guardian(t, append(args, "--kubeconfig", "/absent")...).require(t, 1, "/absent", "--kubeconfig")
		guardian(t, append(args, "--kubeconfig", broken)...).require(t, 1, broken)
		if r := guardian(t, append(args, "--context", "absent")...).require(t, 1, "absent"); r.stdout != "" {
			t.Errorf("%s: got %q", name, r.stdout)
		}
	}
}

func TestTheRightThatIsMissingIsNamed(t *testing.T) {
	nobody := kubeconfigOf(t, "nobody")
	for name, args := range readers() {
		verb := "list"
		if name == "show" {
			verb = "get"
		}
		guardianOf(t, nobody, args...).require(t, 1, "you lack the right to "+verb+" auditrecords.guardian.apigw.io", `User "nobody"`)
	}
	guardianOf(t, kubeconfigOf(t, "getter", "get"), "audit", "show", "a").require(t, 1, "no such audit record", "you lack the right to list auditrecords")
	lister := kubeconfigOf(t, "lister", "list")
	guardianOf(t, lister, "audit", "list").require(t, 0)
	guardianOf(t, lister, "audit", "list", "--watch").require(t, 1, "you lack the right to watch auditrecords.guardian.apigw.io")
}

func TestACustomResourceThatIsMissingIsNamed(t *testing.T) {
	if _, _, err := shared.cluster.Kubectl(t.Context(), "delete", "crd", "auditrecords.guardian.apigw.io"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.cluster.InstallCRDs(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	for _, args := range readers() {
		guardian(t, args...).require(t, 1, "the cluster does not know audit records: install the chart with crds.enabled=true")
	}
	guardian(t, "status").require(t, 3, "Denials in the last 24 h: unknown (list audit records: the cluster does not know audit records")
	var status map[string]any
	guardian(t, "status", "-o", "json").require(t, 3).into(t, &status)
	if denials, found := status["denials24h"]; !found || denials != nil {
		t.Errorf("denials24h is %v", denials)
	}
}

func TestStatusCountsDenials(t *testing.T) {
	noRecords(t)
	countMore(t, put(t, denial(time.Hour, nil)))
	put(t, denial(25*time.Hour, nil))
	guardian(t, "status").require(t, 3, "Denials in the last 24 h: 2\n")
	var status struct{ Denials24h *int64 }
	guardian(t, "status", "-o", "json").require(t, 3).into(t, &status)
	if status.Denials24h == nil || *status.Denials24h != 2 {
		t.Errorf("denials24h is %v", status.Denials24h)
	}
	guardianOf(t, kubeconfigOf(t, "no-records"), "status").require(t, 3, "Denials in the last 24 h: unknown (list audit records: you lack the right to list")
}

func TestAnAPIServerThatDoesNotAnswerIsNamed(t *testing.T) {
	config, err := os.ReadFile(shared.cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	elsewhere := strings.Replace(string(config), shared.cluster.AdminConfig().Host, "https://127.0.0.1:1", 1)
	if err := os.WriteFile(path, []byte(elsewhere), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range readers() {
		guardianOf(t, path, args...).require(t, 1, "127.0.0.1:1")
	}
}

// A reader such as head leaves when it has seen enough.
func TestAReaderThatLeavesIsNoFailure(t *testing.T) {
	noRecords(t)
	if err := records.Fill(t.Context(), shared.cluster.AdminConfig(), 600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"list"}, {"list", "-o", "json"}, {"list", "-o", "csv"}, {"list", "--watch"}, {"list", "--watch", "-o", "json"}, {"export", "--format", "ocsf"},
	} {
		command := commandOf(t, shared.cluster.Kubeconfig(), append([]string{"audit"}, args...)...)
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		command.Stdout, command.Stderr = writer, &stderr
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		if _, err := io.ReadFull(reader, make([]byte, 100)); err != nil {
			t.Error(err)
		}
		reader.Close()
		if err := command.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("audit %s: %v, %s", strings.Join(args, " "), err, stderr.String())
		}
	}
}

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	noRecords(t)
	put(t, denial(time.Minute, nil))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	for name, args := range readers() {
		if name == "show" {
			continue
		}
		command := commandOf(t, shared.cluster.Kubeconfig(), args...)
		var stderr bytes.Buffer
		command.Stdout, command.Stderr = full, &stderr
		if err := command.Run(); err == nil || command.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: %v, %s", name, err, stderr.String())
		}
	}
}

// What is printed as JSON must be whole: nothing else may stand on standard output.
func TestDiagnosticsDoNotMixWithResults(t *testing.T) {
	noRecords(t)
	put(t, denial(time.Minute, nil))
	out := guardian(t, "audit", "list", "-o", "json").require(t, 0)
	if !json.Valid([]byte(out.stdout)) || out.stderr != "" {
		t.Errorf("got %q, %q", out.stdout, out.stderr)
	}
}

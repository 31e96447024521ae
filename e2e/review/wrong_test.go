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
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
)

func TestWrongUsageSaysWhatIsAllowed(t *testing.T) {
	harness.Take(t)
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"an operation that is none":  {[]string{"list", "--operation", "PATCH"}, "CREATE, UPDATE or DELETE"},
		"an outcome that is none":    {[]string{"list", "--outcome", "denyed"}, "Denied, WouldDeny, Unlocked, Exempted, Restored, Authorized, Allowed, Unguarded, Tampered, Drift, Gap, Rotated or Retired"},
		"a reason that is none":      {[]string{"list", "--reason", "Because"}, "ReservedUpdate, ReservedDelete"},
		"a time that is none":        {[]string{"list", "--since", "yesterday"}, "30m, 24h, 7d"},
		"a time to come":             {[]string{"list", "--until", "-5m"}, "30m, 24h, 7d"},
		"since after until":          {[]string{"list", "--since", "1h", "--until", "2h"}, "--until 2h"},
		"a limit below zero":         {[]string{"list", "--limit", "-1"}, "--limit"},
		"a limit that is no number":  {[]string{"list", "--limit", "many"}, "--limit"},
		"an output that is none":     {[]string{"list", "-o", "xml"}, "table, json, yaml, wide, csv, name or"},
		"an output of another":       {[]string{"summary", "-o", "csv"}, "table, json, yaml or"},
		"a watch in YAML":            {[]string{"list", "--watch", "-o", "yaml"}, "table, wide or json"},
		"a format that is none":      {[]string{"export", "--format", "xml"}, "jsonl, csv, ocsf or cloudevents"},
		"a filter of export":         {[]string{"export", "--outcome", "x"}, "Denied"},
		"a filter of summary":        {[]string{"summary", "--since", "x"}, "30m, 24h, 7d"},
		"a command that is not here": {[]string{"lsit"}, "list"},
		"an argument too many":       {[]string{"list", "all"}, "all"},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Run(t, append([]string{"audit"}, test.args...)...).Require(t, 2, test.says)
		})
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	harness.Take(t)
	for _, command := range []string{"list", "show", "summary", "export"} {
		harness.Run(t, "audit", command, "-h").Require(t, 0, "Examples:\n", "apigw-guardian audit "+command)
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
	harness.Take(t)
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("not: [a kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range readers() {
		harness.Run(t, append(args, "--kubeconfig", "/absent")...).Require(t, 1, "/absent", "--kubeconfig")
		harness.Run(t, append(args, "--kubeconfig", broken)...).Require(t, 1, broken)
		if r := harness.Run(t, append(args, "--context", "absent")...).Require(t, 1, "absent"); r.Stdout != "" {
			t.Errorf("%s: got %q", name, r.Stdout)
		}
	}
}

func TestTheRightThatIsMissingIsNamed(t *testing.T) {
	harness.Take(t)
	nobody := kubeconfigOf(t, "nobody")
	for name, args := range readers() {
		verb := "list"
		if name == "show" {
			verb = "get"
		}
		harness.RunAs(t, nobody, args...).Require(t, 1, verb+" auditrecords.guardian.apigw.io", `User "nobody"`)
	}
	harness.RunAs(t, kubeconfigOf(t, "getter", "get"), "audit", "show", "a").Require(t, 1, "list auditrecords")
	lister := kubeconfigOf(t, "lister", "list")
	harness.RunAs(t, lister, "audit", "list").Require(t, 0)
	harness.RunAs(t, lister, "audit", "list", "--watch").Require(t, 1, "watch auditrecords.guardian.apigw.io")
}

func TestACustomResourceThatIsMissingIsNamed(t *testing.T) {
	harness.Take(t)
	if _, _, err := harness.Of(t).Cluster.Kubectl(t.Context(), "delete", "crd", "auditrecords.guardian.apigw.io"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := harness.Of(t).Cluster.InstallCRDs(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	for _, args := range readers() {
		harness.Run(t, args...).Require(t, 1, "crds.enabled=true")
	}
	var status map[string]any
	harness.Run(t, "status", "-o", "json").Require(t, 3).Into(t, &status)
	if denials, found := status["denials24h"]; !found || denials != nil {
		t.Errorf("denials24h is %v", denials)
	}
}

func TestStatusCountsDenials(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	countMore(t, put(t, denial(time.Hour, nil)))
	put(t, denial(25*time.Hour, nil))
	var status struct{ Denials24h *int64 }
	harness.Run(t, "status", "-o", "json").Require(t, 3).Into(t, &status)
	if status.Denials24h == nil || *status.Denials24h != 2 {
		t.Errorf("denials24h is %v", status.Denials24h)
	}
	harness.RunAs(t, kubeconfigOf(t, "no-records"), "status").Require(t, 3, "list auditrecords.guardian.apigw.io")
}

func TestAnAPIServerThatDoesNotAnswerIsNamed(t *testing.T) {
	harness.Take(t)
	config, err := os.ReadFile(harness.Of(t).Cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	elsewhere := strings.Replace(string(config), harness.Of(t).Cluster.AdminConfig().Host, "https://127.0.0.1:1", 1)
	if err := os.WriteFile(path, []byte(elsewhere), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range readers() {
		harness.RunAs(t, path, args...).Require(t, 1, "127.0.0.1:1")
	}
}

// A reader such as head leaves when it has seen enough.
func TestAReaderThatLeavesIsNoFailure(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	if err := records.Fill(t.Context(), harness.Of(t).Cluster.AdminConfig(), 600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"list"}, {"list", "-o", "json"}, {"list", "-o", "csv"}, {"list", "--watch"}, {"list", "--watch", "-o", "json"}, {"export", "--format", "ocsf"},
	} {
		command := harness.Command(t, harness.Of(t).Cluster.Kubeconfig(), append([]string{"audit"}, args...)...)
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
	harness.Take(t)
	noRecords(t)
	put(t, denial(time.Minute, nil))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil && runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/full")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for name, args := range readers() {
		if name == "show" {
			continue
		}
		command := harness.Command(t, harness.Of(t).Cluster.Kubeconfig(), args...)
		var stderr bytes.Buffer
		command.Stdout, command.Stderr = full, &stderr
		if err := command.Run(); err == nil || command.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: %v, %s", name, err, stderr.String())
		}
	}
}

// Standard output holds nothing but the JSON.
func TestDiagnosticsDoNotMixWithResults(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	put(t, denial(time.Minute, nil))
	out := harness.Run(t, "audit", "list", "-o", "json").Require(t, 0)
	if !json.Valid([]byte(out.Stdout)) || out.Stderr != "" {
		t.Errorf("got %q, %q", out.Stdout, out.Stderr)
	}
}

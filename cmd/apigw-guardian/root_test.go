// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runAway runs one command line on a machine without a kubeconfig.
func runAway(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestAWrongCommandLineNamesWhatIsWrong(t *testing.T) {
	webhook := func(args ...string) []string { return append([]string{"webhook", "--url", "https://a:1"}, args...) }
	tests := map[string]struct {
		args  []string
		code  int
		names string
	}{
		"an unknown command":                 {[]string{"preflihgt"}, exitUsage, "preflight?"},
		"an unknown command of audit":        {[]string{"audit", "lsit"}, exitUsage, "list?"},
		"an argument":                        {[]string{"status", "now"}, exitUsage, `"now"`},
		"an unknown flag":                    {[]string{"status", "--jsno"}, exitUsage, "--jsno"},
		"an unknown output format":           {[]string{"status", "-o", "xml"}, exitUsage, "--output"},
		"a broken JSONPath template":         {[]string{"status", "-o", "jsonpath={.a"}, exitUsage, "--output"},
		"a request timeout of no unit":       {[]string{"status", "--server", "http://127.0.0.1:1", "--request-timeout", "never"}, exitFailed, "timeout"},
		"an API key without a region":        {[]string{"preflight", "--tencent-cloud-credentials", "d", "--tencent-cloud-cluster", "c"}, exitUsage, "--tencent-cloud-region"},
		"an API key without a cluster":       {[]string{"authorize", "--tencent-cloud-credentials", "d", "--tencent-cloud-region", "r"}, exitUsage, "--tencent-cloud-cluster"},
		"a cluster without an API key":       {[]string{"preflight", "--tencent-cloud-cluster", "c"}, exitUsage, "--tencent-cloud-credentials"},
		"an unknown engine of authorize":     {[]string{"authorize", "--engine", "opa"}, exitUsage, "--engine"},
		"an unknown mode of preflight":       {[]string{"preflight", "--private-network", "maybe"}, exitUsage, "--private-network"},
		"an unknown mode of authorize":       {[]string{"authorize", "--private-network", "maybe"}, exitUsage, "--private-network"},
		"no time to wait":                    {[]string{"authorize", "--wait", "0s"}, exitUsage, "--wait"},
		"retire without a terminal":          {[]string{"retire"}, exitUsage, "--yes"},
		"rotate without a terminal":          {[]string{"rotate"}, exitUsage, "--yes"},
		"no time to retire":                  {[]string{"retire", "--yes", "--timeout", "0s"}, exitUsage, "--timeout"},
		"an absent kubeconfig":               {[]string{"status", "--kubeconfig", "/absent"}, exitFailed, "/absent"},
		"no kubeconfig":                      {[]string{"status"}, exitFailed, "--kubeconfig"},
		"an absent context":                  {[]string{"status", "--context", "absent"}, exitFailed, "absent"},
		"an absent directory":                {[]string{"status", "--reservations", "/absent"}, exitFailed, "/absent"},
		"a Deployment without a namespace":   {[]string{"uninstall", "--deployment", "guard"}, exitUsage, "--deployment"},
		"a webhook without an address":       {[]string{"webhook"}, exitUsage, "--url"},
		"a webhook with two addresses":       {webhook("--service", "a/b:1"), exitUsage, "--service"},
		"a URL without TLS":                  {[]string{"webhook", "--url", "http://a:1"}, exitUsage, "https://"},
		"a service without a port":           {[]string{"webhook", "--service", "a/b"}, exitUsage, "a/b"},
		"an unknown mode of webhook":         {webhook("--mode", "off"), exitUsage, "--mode"},
		"a negative drain period":            {webhook("--drain-period", "-1s"), exitUsage, "--drain-period"},
		"an unknown source of certificates":  {webhook("--certs", "magic"), exitUsage, "--certs"},
		"provided files without a directory": {webhook("--certs", "files"), exitUsage, "--cert-dir"},
		"a directory without provided files": {webhook("--cert-dir", "/etc"), exitUsage, "--cert-dir"},
		"a short CA lifetime":                {webhook("--ca-lifetime", "1s"), exitUsage, "--ca-lifetime"},
		"a short leaf lifetime":              {webhook("--leaf-lifetime", "0"), exitUsage, "--leaf-lifetime"},
		"a leaf that outlives its CA":        {webhook("--ca-lifetime", "1h", "--leaf-lifetime", "2h"), exitUsage, "--leaf-lifetime"},
		"an absent client CA":                {webhook("--server", "http://127.0.0.1:1", "--client-ca", "/absent"), exitFailed, "/absent"},
		"an unknown side door":               {webhook("--side-doors", "shut"), exitUsage, `--side-doors "shut": must be observe, enforce or off`},
		"an unknown kind of drift":           {webhook("--drift", "revert"), exitUsage, "--drift"},
		"an unknown operation of a filter":   {[]string{"audit", "list", "--operation", "PATCH"}, exitUsage, `--operation "PATCH": must be CREATE, UPDATE or DELETE`},
		"an unknown outcome":                 {[]string{"audit", "list", "--outcome", "denyed"}, exitUsage, "--outcome"},
		"an unknown reason":                  {[]string{"audit", "list", "--reason", "Because"}, exitUsage, "--reason"},
		"an unknown format of export":        {[]string{"audit", "export", "--format", "xml"}, exitUsage, "--format"},
		"an unknown dry run":                 {[]string{"audit", "ack", "a", "--note", "b", "--dry-run=maybe"}, exitUsage, "--dry-run"},
		"an unknown end of an unlock":        {[]string{"unlock", "--on-end", "revert"}, exitUsage, `--on-end "revert": must be report or restore`},
		"an unknown mode of policy":          {[]string{"policy", "--mode", "off"}, exitUsage, `--mode "off": must be enforce or observe`},
		"an unknown log level":               {webhook("--log-level", "loud"), exitUsage, "--log-level"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runAway(t, test.args...)
			if code != test.code || !strings.Contains(stderr, test.names) || stdout != "" {
				t.Errorf("exit code %d, want %d; want %q in\n%s%s", code, test.code, test.names, stdout, stderr)
			}
		})
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	for _, command := range newRoot().Commands() {
		if command.Name() == "help" || command.Name() == "completion" {
			continue
		}
		code, stdout, _ := runAway(t, command.Name(), "-h")
		if code != exitDone || !strings.Contains(stdout, "apigw-guardian "+command.Name()) || command.Example == "" {
			t.Errorf("%s: exit code %d, %s", command.Name(), code, stdout)
		}
	}
}

func TestAJSONPathSelectsAFieldOfTheJSON(t *testing.T) {
	code, stdout, stderr := runAway(t, "version", "-o", "jsonpath={.version}")
	if code != exitDone || stdout != version {
		t.Errorf("exit code %d, %q, %s", code, stdout, stderr)
	}
}

func TestClientFlagsAreThoseOfKubectl(t *testing.T) {
	var header http.Header
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	code, _, stderr := runAway(t, "verify", "--server", server.URL, "--insecure-skip-tls-verify", "--token", "secret-token", "--as", "eve", "--as-group", "staff")
	if code != exitFailed || strings.Contains(stderr, "secret-token") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	for key, want := range map[string]string{
		"Authorization": "Bearer secret-token", "Impersonate-User": "eve", "Impersonate-Group": "staff", "User-Agent": "apigw-guardian",
	} {
		if got := header.Get(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// An API server that accepts the connection and does not answer must not stop a command for minutes.
func TestTheFirstRequestIsBounded(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, command := range []string{"preflight", "authorize", "status", "verify", "audit list", "audit list -w", "audit show a", "audit summary", "audit export", "audit web"} {
		start := time.Now()
		code, _, stderr := runAway(t, append(strings.Fields(command), "--server", "http://"+silent.Addr().String(), "--request-timeout", "100ms")...)
		if code != exitFailed || strings.Count(stderr, silent.Addr().String()) > 2 || !strings.Contains(stderr, "--request-timeout") {
			t.Errorf("%s: exit code %d, %s", command, code, stderr)
		}
		if took := time.Since(start); took > firstContact/2 {
			t.Errorf("%s: it took %s", command, took)
		}
	}
}

// RBAC allows any character but a slash and a percent sign in the name of a binding.
func TestNamesDoNotControlTheTerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := new(outputFlag).print(&out, nil, func(p *printer) {
		p.row("a\x1b[2J", "b\u202e")
		p.linef("Also bound: %s", "c\r\x07")
	})
	if err != nil || strings.ContainsAny(out.String(), "\x1b\u202e\r\x07") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

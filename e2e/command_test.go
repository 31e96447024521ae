// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

func TestBadUsageSaysWhatToDo(t *testing.T) {
	harness.Take(t)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a command that is not there":           {[]string{"preflihgt"}, 2, "did you mean preflight?"},
		"an argument too many":                  {[]string{"status", "now"}, 2, "takes no argument"},
		"a flag that is not there":              {[]string{"status", "--jsno"}, 2, "unknown flag"},
		"an output that is not there":           {[]string{"status", "-o", "xml"}, 2, "table, json or yaml"},
		"a mode of no meaning":                  {[]string{"preflight", "--private-network", "maybe"}, 2, "not enforce, warn or skip"},
		"no time to wait":                       {[]string{"authorize", "--wait", "0s"}, 2, "give a time above zero"},
		"a kubeconfig that is not there":        {[]string{"status", "--kubeconfig", "/absent"}, 1, "/absent"},
		"a context that is not there":           {[]string{"status", "--context", "absent"}, 1, "absent"},
		"no reservations":                       {[]string{"status", "--reservations", "/absent"}, 1, "/absent"},
		"a webhook that nobody can reach":       {[]string{"webhook"}, 2, "--service or --url"},
		"two ways to a webhook":                 {[]string{"webhook", "--url", "https://a:1", "--service", "a/b:1"}, 2, "both given"},
		"a URL without TLS":                     {[]string{"webhook", "--url", "http://a:1"}, 2, "https://HOST:PORT"},
		"a service without a port":              {[]string{"webhook", "--service", "a/b"}, 2, "NAMESPACE/NAME:PORT"},
		"a mode that is none":                   {[]string{"webhook", "--url", "https://a:1", "--mode", "off"}, 2, "enforce or observe"},
		"a drain period below zero":             {[]string{"webhook", "--url", "https://a:1", "--drain-period", "-1s"}, 2, "--drain-period"},
		"a source of certificates that is none": {[]string{"webhook", "--url", "https://a:1", "--certs", "magic"}, 2, "builtin or files"},
		"certificates in no folder":             {[]string{"webhook", "--url", "https://a:1", "--certs", "files"}, 2, "--cert-dir"},
		"a folder that nobody reads":            {[]string{"webhook", "--url", "https://a:1", "--cert-dir", "/etc"}, 2, "--certs files"},
		"an authority of a moment":              {[]string{"webhook", "--url", "https://a:1", "--ca-lifetime", "1s"}, 2, "at least 5s"},
		"a leaf of a moment":                    {[]string{"webhook", "--url", "https://a:1", "--leaf-lifetime", "0"}, 2, "at least 5s"},
		"a leaf above its authority":            {[]string{"webhook", "--url", "https://a:1", "--ca-lifetime", "1h", "--leaf-lifetime", "2h"}, 2, "never outlives"},
		"a client CA that is not there":         {[]string{"webhook", "--url", "https://a:1", "--client-ca", "/absent"}, 1, "/absent: the file is missing"},
		"a log level that is none":              {[]string{"webhook", "--url", "https://a:1", "--log-level", "loud"}, 2, "--log-level"},
	} {
		t.Run(name, func(t *testing.T) { harness.Run(t, test.args...).Require(t, test.code, test.says) })
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	harness.Take(t)
	for _, command := range []string{"preflight", "authorize", "status", "verify", "webhook", "version"} {
		harness.Run(t, command, "-h").Require(t, 0, "Examples:\n", "apigw-guardian "+command)
	}
}

func TestVersion(t *testing.T) {
	harness.Take(t)
	var version struct{ Version, Commit, Go string }
	harness.Run(t, "version", "-o", "json").Require(t, 0).Into(t, &version)
	if version.Version == "" || !strings.HasPrefix(version.Go, "go1.") {
		t.Errorf("got %+v", version)
	}
}

// A malformed reservation is an error with its file and path, and the server does not start.
func TestWebhookRefusesAMalformedReservation(t *testing.T) {
	harness.Take(t)
	dir := t.TempDir()
	const broken = "apiVersion: guardian.apigw.io/v1alpha1\nkind: Reservation\nmetadata: {name: edge}\nspec: {ower: Edge}\n"
	if err := os.WriteFile(filepath.Join(dir, "edge.yaml"), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "webhook", "--url", "https://127.0.0.1:1", "--listen", "127.0.0.1:0", "--reservations", dir).
		Require(t, 1, filepath.Join(dir, "edge.yaml"), `unknown field "spec.ower"`)
}

func TestWebhookNamesAnAddressInUse(t *testing.T) {
	harness.Take(t)
	guard := harness.StartGuard(t)
	address := strings.TrimPrefix(guard.URL(), "https://")
	harness.Run(t, "webhook", "--url", guard.URL(), "--listen", address, "--probe-listen=0", "--metrics-listen=0").
		Require(t, 1, address)
}

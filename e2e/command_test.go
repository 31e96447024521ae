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

// The unit tests of cmd/apigw-guardian have a row for every wrong command line.
func TestExitCodesReachTheShell(t *testing.T) {
	harness.Take(t)
	harness.Run(t, "status", "--jsno").Require(t, 2, "--jsno")
	harness.Run(t, "status", "--kubeconfig", "/absent").Require(t, 1, "/absent")
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

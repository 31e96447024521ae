// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ran is one run of the program.
type ran struct {
	code           int
	stdout, stderr string
}

// run runs the program as the admin of the shared cluster.
func run(t *testing.T, args ...string) ran {
	t.Helper()
	return guardianOf(t, shared.cluster.Kubeconfig(), args...)
}

func guardianOf(t *testing.T, kubeconfig string, args ...string) ran {
	t.Helper()
	command := exec.CommandContext(t.Context(), shared.program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// require wants an exit code, and each text on either stream.
func (r ran) require(t *testing.T, code int, says ...string) ran {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	for _, text := range says {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Fatalf("it does not say %q\n%s%s", text, r.stdout, r.stderr)
		}
	}
	return r
}

// into reads the JSON that was printed.
func (r ran) into(t *testing.T, result any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), result); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, r.stdout)
	}
}

// The unit tests of cmd/apigw-guardian have a row for every wrong command line.
func TestExitCodesReachTheShell(t *testing.T) {
	run(t, "status", "--jsno").require(t, 2, "--jsno")
	run(t, "status", "--kubeconfig", "/absent").require(t, 1, "/absent")
	var version struct{ Version, Commit, Go string }
	run(t, "version", "-o", "json").require(t, 0).into(t, &version)
	if version.Version == "" || !strings.HasPrefix(version.Go, "go1.") {
		t.Errorf("got %+v", version)
	}
}

// A malformed reservation is an error with its file and path, and the server does not start.
func TestWebhookRefusesAMalformedReservation(t *testing.T) {
	dir := t.TempDir()
	const broken = "apiVersion: guardian.apigw.io/v1alpha1\nkind: Reservation\nmetadata: {name: edge}\nspec: {ower: Edge}\n"
	if err := os.WriteFile(filepath.Join(dir, "edge.yaml"), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "webhook", "--url", "https://127.0.0.1:1", "--listen", "127.0.0.1:0", "--reservations", dir).
		require(t, 1, filepath.Join(dir, "edge.yaml"), `unknown field "spec.ower"`)
}

func TestWebhookNamesAnAddressInUse(t *testing.T) {
	guard := startGuard(t)
	address := strings.TrimPrefix(guard.URL(), "https://")
	run(t, "webhook", "--url", guard.URL(), "--listen", address, "--probe-listen=0", "--metrics-listen=0").
		require(t, 1, address, "in use")
}

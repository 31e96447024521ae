// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// Ran is a run of the program that has ended.
type Ran struct {
	Code           int
	Stdout, Stderr string
}

// Run runs the program as the admin of the test's cluster.
func Run(t *testing.T, args ...string) Ran {
	t.Helper()
	return RunAs(t, Of(t).Cluster.Kubeconfig(), args...)
}

// RunAs runs the program with a kubeconfig.
func RunAs(t *testing.T, kubeconfig string, args ...string) Ran {
	t.Helper()
	ran, err := RunCommand(Command(t, kubeconfig, args...))
	if err != nil {
		t.Fatal(err)
	}
	return ran
}

// Command is the program with a kubeconfig, not started. It is killed after Patience, or with the test.
func Command(t *testing.T, kubeconfig string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	bed := Of(t)
	command := bed.Cluster.Command(ctx, bed.Program, args...)
	command.Env = append(command.Env, "KUBECONFIG="+kubeconfig, "TZ=UTC")
	return command
}

// RunCommand runs a command. An exit code other than 0 is no error.
func RunCommand(command *exec.Cmd) (Ran, error) {
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Ran{}, err
	}
	return Ran{Code: command.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}, nil
}

// Kubeconfig writes a kubeconfig that impersonates a user without groups, and returns its path.
func Kubeconfig(t *testing.T, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), user+".kubeconfig")
	if err := testbed.WriteKubeconfig(path, Of(t).Cluster.ConfigFor(user)); err != nil {
		t.Fatal(err)
	}
	return path
}

// Require ends the test unless the run has the exit code, and has printed each text to standard output or standard error.
func (r Ran) Require(t *testing.T, code int, texts ...string) Ran {
	t.Helper()
	if r.Code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.Stdout+r.Stderr, text) {
			t.Fatalf("the output lacks %q\n%s%s", text, r.Stdout, r.Stderr)
		}
	}
	return r
}

// Into decodes the JSON on standard output.
func (r Ran) Into(t *testing.T, result any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Stdout), result); err != nil {
		t.Fatalf("decode standard output: %v\n%s", err, r.Stdout)
	}
}

// Lines are the lines of standard output.
func (r Ran) Lines() []string {
	return strings.Split(strings.TrimSuffix(r.Stdout, "\n"), "\n")
}

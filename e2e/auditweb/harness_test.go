// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// shared is what all tests of this package use one after the other.
var shared struct {
	cluster *testbed.Cluster
	program string
	// withoutKind is what audit web did before the cluster knew audit records.
	withoutKind ran
}

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "apigw-guardian-auditweb-")
	if err != nil {
		return 1, fmt.Errorf("make a folder for the program: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	shared.program = filepath.Join(dir, "apigw-guardian")
	build := exec.Command("go", "build", "-o", shared.program, "../../cmd/apigw-guardian")
	if output, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the program: %w\n%s", err, output)
	}
	ctx := context.Background()
	if shared.cluster, err = testbed.Start(ctx, program.Config()); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.cluster.Stop()) }()
	shared.withoutKind = run(ctx, "audit", "web")
	if err := shared.cluster.InstallCRDs(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// ran is one run of the program.
type ran struct {
	code           int
	stdout, stderr string
}

// runTimeout ends a program that should have ended by itself.
const runTimeout = time.Minute

// run runs the program as the admin of the cluster.
func run(ctx context.Context, args ...string) ran {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	command := shared.cluster.Command(ctx, shared.program, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	_ = command.Run() // the exit code tells
	return ran{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// startReview runs audit web until the test ends, and wants it to end well.
func startReview(t *testing.T, flags ...string) *Review {
	t.Helper()
	review, err := StartReview(context.WithoutCancel(t.Context()), shared.cluster, shared.program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := review.Stop(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	return review
}

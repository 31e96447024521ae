// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"bytes"
	"context"
	"errors"
	"os"
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
	os.Exit(program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program, shared.cluster = guardian, cluster
		shared.withoutKind = run(ctx, "audit", "web")
		return cluster.InstallCRDs(ctx)
	}))
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

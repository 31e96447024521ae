// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// Tests runs the tests of one package, which share a guard that is built from the tree and a cluster of its own, and returns
// the exit code for TestMain. prepare keeps both for the tests, and makes the cluster ready for them.
func Tests(m interface{ Run() int }, prepare func(ctx context.Context, guardian string, cluster *testbed.Cluster) error) int {
	code, err := runTests(m, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runTests(
	m interface{ Run() int }, prepare func(context.Context, string, *testbed.Cluster) error,
) (code int, err error) {
	dir, err := os.MkdirTemp("", "apigw-guardian-e2e-")
	if err != nil {
		return 1, fmt.Errorf("make a folder for the program: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	guardian := filepath.Join(dir, "apigw-guardian")
	build := exec.Command("go", "build", "-o", guardian, "github.com/apigw-guardian/apigw-guardian/cmd/apigw-guardian")
	if output, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the program: %w\n%s", err, output)
	}
	ctx := context.Background()
	cluster, err := testbed.Start(ctx, Config())
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err := prepare(ctx, guardian, cluster); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

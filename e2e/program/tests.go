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

// Build returns the path of the guard that tests run: the one that E2E_PROGRAM names, or one that it builds from the tree.
// remove deletes what Build made.
func Build() (path string, remove func() error, err error) {
	if path := os.Getenv("E2E_PROGRAM"); path != "" {
		return path, func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "apigw-guardian-e2e-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the program: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	path = filepath.Join(dir, "apigw-guardian")
	build := exec.Command("go", "build", "-o", path, "github.com/apigw-guardian/apigw-guardian/cmd/apigw-guardian")
	if output, err := build.CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("build the program: %w\n%s", err, output), remove())
	}
	return path, remove, nil
}

// Tests runs the tests of one package, which share one guard binary and one cluster, and returns the exit code for TestMain.
// prepare keeps both for the tests, and makes the cluster ready for them.
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
	guardian, remove, err := Build()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, remove()) }()
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

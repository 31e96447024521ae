// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package program is what the end-to-end programs share: how they begin, end, and choose their cluster.
package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// Main runs a program and ends the process: 0 when run returns nil, else 1, with the error on standard error. SIGINT and
// SIGTERM end the context, so that run ends what it has started.
func Main(name string, run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Config is a cluster of the release that K8S_VERSION names, or of the default one, built with its progress on standard error.
func Config() testbed.Config {
	return testbed.Config{
		Version: os.Getenv("K8S_VERSION"),
		Builder: testbed.Builder{Progress: os.Stderr},
	}
}

// Guardian is the absolute path of the guard, as `make build` leaves it at the top of the tree, where programs are run.
func Guardian() (string, error) {
	path, err := filepath.Abs("bin/apigw-guardian")
	if err != nil {
		return "", fmt.Errorf("find the guard: %w", err)
	}
	return path, nil
}

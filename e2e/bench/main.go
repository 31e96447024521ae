// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures the guard through a real API server and prints a table for docs/benchmarks.md. Contenders are
// interleaved in one run, and every figure is the median of several rounds: absolute times move with the machine, ratios
// do not.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// program is the guard, as `make build` leaves it, seen from the top of the tree.
const program = "bin/apigw-guardian"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run: a cluster, and the guard that is started and stopped in it.
type bench struct {
	cluster *testbed.Cluster
	world   *scenario.World
	program string
}

func run(ctx context.Context) (err error) {
	absolute, err := filepath.Abs(program)
	if err != nil {
		return fmt.Errorf("find %s: %w", program, err)
	}
	cluster, err := testbed.Start(ctx, testbed.Config{
		Version: os.Getenv("K8S_VERSION"),
		Builder: testbed.Builder{Progress: os.Stderr},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err := cluster.StartUnguarded(ctx); err != nil {
		return err
	}
	world, err := scenario.NewWorld(ctx, cluster)
	if err != nil {
		return err
	}
	b := &bench{cluster: cluster, world: world, program: absolute}
	fmt.Printf("Kubernetes %s, one client, medians of %d rounds\n\n", cluster.Version(), rounds)
	return errors.Join(b.unrelatedWrites(ctx), b.firstDenial(ctx))
}

// rounds is how often everything is measured.
const rounds = 7

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

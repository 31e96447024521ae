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
	"slices"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

func main() { program.Main("bench", run) }

// bench is one run: a cluster, and the guard that is started and stopped in it.
type bench struct {
	cluster *testbed.Cluster
	world   *scenario.World
	// guardian is the program.
	guardian string
}

func run(ctx context.Context) (err error) {
	guardian, err := program.Guardian()
	if err != nil {
		return err
	}
	world, err := scenario.Start(ctx, program.Config())
	if err != nil {
		return err
	}
	cluster := world.Cluster
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	b := &bench{cluster: cluster, world: world, guardian: guardian}
	fmt.Printf("Kubernetes %s, one client, medians of %d rounds\n\n", cluster.Version(), rounds)
	return errors.Join(b.unrelatedWrites(ctx), b.firstDenial(ctx), b.countDenials(ctx), b.listRecords(ctx), b.openPage(ctx))
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

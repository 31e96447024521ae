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
	"slices"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/siege"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

func main() {
	siege.Main()
	program.Main("bench", run)
}

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
	chosen, err := choose(os.Getenv("BENCH_PARTS"))
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
	for _, part := range chosen {
		if err := part.measure(b, ctx); err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	return nil
}

// part is something that can be measured alone.
type part struct {
	name    string
	measure func(*bench, context.Context) error
}

func parts() []part {
	return []part{
		{"P1", (*bench).deniedWrites}, // and P2
		{"P5", (*bench).unrelatedWrites},
		{"P8", (*bench).firstDenial},
		{"P9", (*bench).countDenials},
		{"P10", (*bench).listRecords},
		{"P11", (*bench).repairs},
		{"P12", (*bench).deniedByPolicy},
		{"P13", (*bench).besiege},
		{"P15", (*bench).manyReservations},
	}
}

// choose returns the parts that are named, separated by spaces, or all where none is.
func choose(names string) ([]part, error) {
	all := parts()
	if strings.TrimSpace(names) == "" {
		return all, nil
	}
	var chosen []part
	for name := range strings.FieldsSeq(names) {
		at := slices.IndexFunc(all, func(p part) bool { return p.name == name })
		if at < 0 {
			return nil, fmt.Errorf("BENCH_PARTS: there is no %q; there are P1 P5 P8 P9 P10 P11 P12 P13 P15", name)
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

// rounds is how often everything is measured.
const rounds = 7

func median(of []time.Duration) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

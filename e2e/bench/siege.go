// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/siege"
)

const (
	// chartMemory is the chart's memory limit.
	chartMemory = 128 << 20
	// siegeTime is how long each attack takes.
	siegeTime = 15 * time.Second
)

// besiege is P13 and R11: what honest callers get while others attack the guard in a cgroup of the chart's memory limit.
func (b *bench) besiege(ctx context.Context) error {
	fmt.Printf("\n| P13: attack, %s each | peak memory | killed | denials | p50 | p99 | writes without the guard, p50 | p99 "+
		"| new connections | p50 | p99 |\n|---|---|---|---|---|---|---|---|---|---|---|\n", siegeTime)
	for _, attack := range siege.Attacks() {
		if only := os.Getenv("BENCH_ATTACK"); !strings.Contains(attack.Name, only) {
			continue
		}
		if err := b.besiegeBy(ctx, attack); err != nil {
			return fmt.Errorf("%s: %w", attack.Name, err)
		}
	}
	return nil
}

func (b *bench) besiegeBy(ctx context.Context, attack siege.Attack) (err error) {
	program := b.guardian
	cage, err := siege.NewCage(chartMemory)
	switch {
	case errors.Is(err, siege.ErrNoCage):
		fmt.Printf("(no memory limit: %v)\n", err)
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, cage.Remove()) }()
		if program, err = cage.Wrap(program); err != nil {
			return err
		}
	}
	guard, err := b.cluster.StartGuard(ctx, program)
	if err != nil {
		return err
	}
	defer guard.Stop()
	report, err := siege.Run(ctx, siege.Place{World: b.world, Guard: guard}, attack, siegeTime)
	if err != nil {
		return err
	}
	killed := "not known"
	if cage != nil {
		kills, err := cage.Kills()
		if err != nil {
			return err
		}
		killed = fmt.Sprint(kills)
	}
	fmt.Printf("| %s | %.1f MiB | %s | %d, %d wrong | %s | %s | %s | %s | %d, %d refused | %s | %s |\n", attack.Name,
		float64(report.Peak)/(1<<20), killed, len(report.Denials), report.Wrong,
		milliseconds(siege.Percentile(report.Denials, 50)), milliseconds(siege.Percentile(report.Denials, 99)),
		milliseconds(siege.Percentile(report.Others, 50)), milliseconds(siege.Percentile(report.Others, 99)),
		len(report.Connections), report.Refused,
		milliseconds(siege.Percentile(report.Connections, 50)), milliseconds(siege.Percentile(report.Connections, 99)))
	for _, first := range []string{report.FirstWrong, report.FirstRefused} {
		if first != "" {
			fmt.Fprintln(os.Stderr, "first failure:", first)
		}
	}
	return nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package siege

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

func TestMain(m *testing.M) {
	Main()
	harness.Main(m, 1, func(ctx context.Context, bed *harness.Bed) error { return bed.Cluster.StartUnguarded(ctx) })
}

const (
	// chartMemory is the chart's memory limit, and maxResident what the guard may take of it.
	chartMemory = 128 << 20
	maxResident = 100 << 20
	// attackTime is short: make bench takes longer, and measures.
	attackTime = 4 * time.Second
)

func TestTheGuardDeniesUnderAttack(t *testing.T) {
	bed := harness.Take(t)
	world, program := harness.World(t), bed.Program
	cage, err := NewCage(chartMemory)
	switch {
	case errors.Is(err, ErrNoCage):
		t.Logf("the guard's memory is watched, and not limited: %v", err)
	case err != nil:
		t.Fatal(err)
	default:
		t.Cleanup(func() {
			if err := cage.Remove(); err != nil {
				t.Error(err)
			}
		})
		if program, err = cage.Wrap(program); err != nil {
			t.Fatal(err)
		}
	}
	guard, err := bed.Cluster.StartGuard(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Stop)
	for _, attack := range Attacks() {
		if !attack.inTest {
			continue
		}
		t.Run(attack.Name, func(t *testing.T) {
			report, err := Run(t.Context(), Place{World: world, Guard: guard}, attack, attackTime)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Denials) == 0 || report.Wrong > 0 {
				t.Errorf("%d of %d writes were not denied: %s", report.Wrong, len(report.Denials), report.FirstWrong)
			}
			if len(report.Connections) == report.Refused {
				t.Errorf("none of %d new connections was served: %s", report.Refused, report.FirstRefused)
			}
			if report.Peak < 0 || report.Peak > maxResident {
				t.Errorf("the guard held %d bytes, want at most %d", report.Peak, maxResident)
			}
			if cage == nil {
				return
			}
			if kills, err := cage.Kills(); err != nil || kills > 0 {
				t.Errorf("the kernel killed %d processes, %v", kills, err)
			}
		})
	}
}

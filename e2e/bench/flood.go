// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// flood is P9.
func flood() scenario.Flood { return scenario.Flood{Clients: 32, Users: 200, Max: 20_000} }

// countDenials is P9: a flood of denials, recorded in each mode, and not at all.
func (b *bench) countDenials(ctx context.Context) error {
	if err := b.cluster.InstallCRDs(ctx); err != nil {
		return err
	}
	fmt.Printf("\n| P9: %d denials, %d clients, %d users | denials/s | counted | records | writes of records |\n|---|---|---|---|---|\n",
		flood().Max, flood().Clients, flood().Users)
	for _, mode := range []string{"blocking", "durable", "batch"} {
		if err := b.countDenialsIn(ctx, mode); err != nil {
			return fmt.Errorf("audit mode %s: %w", mode, err)
		}
	}
	return nil
}

func (b *bench) countDenialsIn(ctx context.Context, mode string) (err error) {
	spool, err := os.MkdirTemp("", "apigw-guardian-bench-")
	if err != nil {
		return fmt.Errorf("make a spool directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(spool)) }()
	guard, err := b.cluster.StartGuard(ctx, b.guardian, "--audit-mode="+mode, "--spool-dir="+spool)
	if err != nil {
		return err
	}
	defer guard.Stop()
	before, err := b.counted(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	tally := flood().Run(ctx, b.world)
	took := time.Since(start)
	writes, err := awaitRecords(ctx, guard)
	if err != nil {
		return err
	}
	after, err := b.counted(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("| %s | %.0f | %d of %d | %d | %.0f |\n", mode, float64(tally.Denied)/took.Seconds(),
		after.Writes-before.Writes, tally.Denied, after.Records-before.Records, writes)
	return nil
}

func (b *bench) counted(ctx context.Context) (audit.Summary, error) {
	store, err := store.New(b.cluster.AdminConfig())
	if err != nil {
		return audit.Summary{}, err
	}
	records, err := store.List(ctx, audit.Filter{})
	return audit.Summarize(records, time.UTC), err
}

// awaitRecords waits until every record is stored, and returns how often one was written.
func awaitRecords(ctx context.Context, guard *testbed.Guard) (float64, error) {
	for {
		pending, err := guard.Metric(ctx, "apigw_guardian_audit_pending_records")
		if err != nil {
			return 0, err
		}
		if pending == 0 {
			return guard.Metric(ctx, `apigw_guardian_audit_record_writes_total{result="stored"}`)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

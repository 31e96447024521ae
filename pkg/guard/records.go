// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Records say how the guard records events.
type Records struct {
	Mode recorder.Mode
	// SpoolDir is a directory of this replica alone; "" for no spool, which only recorder.Blocking allows.
	SpoolDir string
	// ExtraKeys are the keys of userInfo.extra that records keep, as of audit.KeptExtra.
	ExtraKeys []string
	// SpoolVolume is the size of its volume, in bytes; zero for the recorder's default.
	SpoolVolume resource.QuantityValue
	Retention   store.Retention
}

// addRecorder makes the recorder. It bounds itself, and a denial waits for it, so that its client has no rate limit.
func (g *Guard) addRecorder() error {
	var err error
	if g.records, err = store.New(unlimited(g.config)); err != nil {
		return err
	}
	settings := g.options.Records
	g.recorder, err = recorder.New(recorder.Options{
		Store: g.records, Mode: settings.Mode, SpoolDir: settings.SpoolDir, SpoolVolume: settings.SpoolVolume.Value(), Replica: g.name,
		Announce: store.NewEvents(g.eventSource, g.options.Set).Announce,
		Registry: g.options.Registry, Log: g.options.Log,
	})
	if err != nil {
		return fmt.Errorf("set up the recorder: %w", err)
	}
	return nil
}

// problemInterval is how often the leader compares the recorder's problem with the one on the webhook configuration.
const problemInterval = 5 * time.Second

// publishRecordsProblem keeps the recorder's problem on the webhook configuration until ctx ends.
func (g *Guard) publishRecordsProblem(ctx context.Context) {
	published := ""
	wait.UntilWithContext(ctx, func(context.Context) {
		if problem := g.recorder.Problem(); problem != published {
			published = problem
			g.changes.Notify()
		}
	}, problemInterval)
}

// retentionInterval is how often the leader deletes old records. It bounds how far their number exceeds the limit.
const retentionInterval = time.Minute

// retainRecords deletes old records until ctx ends. Only the leader runs it: two replicas would delete each other's page.
func (g *Guard) retainRecords(ctx context.Context) {
	retention := g.options.Records.Retention
	retention.Dropped = g.logDropped
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		count, err := g.records.CleanUp(ctx, retention, time.Now())
		if err != nil && ctx.Err() == nil {
			g.options.Log.Warn("failed to delete old audit records", slog.Any("err", err))
		}
		if err := g.unlocks.CleanUp(ctx, time.Now().Add(-g.options.Records.Retention.Age)); err != nil && ctx.Err() == nil {
			g.options.Log.Warn("failed to delete old unlocks", slog.Any("err", err))
		}
		if count > 0 {
			g.options.Log.Info("old audit records deleted", slog.Int("count", count))
		}
	}, retentionInterval)
}

// maxDropped bounds the log lines of one cleanup.
const maxDropped = 20

// logDropped says which records a cleanup has deleted.
func (g *Guard) logDropped(dropped []store.Dropped) {
	for _, d := range dropped[:min(len(dropped), maxDropped)] {
		cause := "too many"
		if d.TooOld {
			cause = "too old"
		}
		g.options.Log.Info("audit records of a user and reason deleted", slog.String("cause", cause),
			slog.String("user", text.Printable(d.User, maxHolder)), slog.String("reason", text.Printable(d.Reason, maxHolder)),
			slog.Int("count", d.Records), slog.Int64("writes", d.Writes), slog.Time("from", d.From), slog.Time("to", d.To))
	}
}

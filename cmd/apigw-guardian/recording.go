// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// recordingFlags say how denials are recorded.
type recordingFlags struct {
	mode      string
	spoolDir  string
	retention store.Retention
}

func (f *recordingFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.mode, "audit-mode", string(recorder.Blocking),
		"blocking: an answer waits until its record is in the API server; batch: until it is in the spool")
	flags.StringVar(&f.spoolDir, "spool-dir", "",
		"folder of this replica alone that keeps records while the API server cannot (default: none, the log is all there is then)")
	flags.DurationVar(&f.retention.Age, "audit-retention", 90*24*time.Hour, "how long records are kept after their last write")
	flags.Int64Var(&f.retention.Max, "audit-max-records", 10_000, "how many records are kept; those of the noisiest users and hours go first")
}

func (f *recordingFlags) check() error {
	mode := recorder.Mode(f.mode)
	switch {
	case mode != recorder.Blocking && mode != recorder.Batch:
		return fmt.Errorf("--audit-mode %q: give blocking or batch", f.mode)
	case mode == recorder.Batch && f.spoolDir == "":
		return fmt.Errorf("--audit-mode batch needs --spool-dir: an answer waits until its record is in the spool")
	case f.retention.Age <= 0:
		return fmt.Errorf("--audit-retention %s: give a time above zero", f.retention.Age)
	case f.retention.Max <= 0:
		return fmt.Errorf("--audit-max-records %d: give a number above zero", f.retention.Max)
	}
	return nil
}

// addRecorder makes the recorder, which runs as long as the server answers.
func (g *guard) addRecorder() error {
	config := rest.CopyConfig(g.config)
	config.QPS = -1 // the recorder bounds itself, and a denial waits for it
	store, err := store.New(config)
	if err != nil {
		return err
	}
	flags := g.settings.flags.recording
	replica, err := replicaName()
	if err != nil {
		return err
	}
	r, err := recorder.New(recorder.Options{
		Store: store, Mode: recorder.Mode(flags.mode), SpoolDir: flags.spoolDir, Replica: replica,
		Announce: g.announce, Registry: metrics.Registry, Log: g.settings.log,
	})
	if err != nil {
		return fmt.Errorf("set up the recorder: %w", err)
	}
	g.records, g.recorder = store, r
	return nil
}

// announce waits for the manager, which is made after the recorder.
func (g *guard) announce(record *v1alpha1.AuditRecord) {
	store.Events{Recorder: g.manager.GetEventRecorder(guardian.Name), Set: g.set}.Announce(record)
}

// replicaName is new at every start: a count that a former process may still be writing is not continued.
func replicaName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name this replica: %w", err)
	}
	return host + "-" + rand.String(8), nil
}

// alongside runs the recorder while serve runs, and ends it after the last answer.
func alongside(r *recorder.Recorder, serve func() error) error {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { r.Run(ctx) })
	err := serve()
	cancel()
	group.Wait()
	return err
}

// problemInterval is how often the leader looks whether its registration tells of another problem of the recorder.
const problemInterval = 5 * time.Second

// publishRecordsProblem has the registration follow what the recorder says, until ctx ends.
func (g *guard) publishRecordsProblem(ctx context.Context) error {
	told := ""
	wait.UntilWithContext(ctx, func(context.Context) {
		if problem := g.recorder.Problem(); problem != told {
			told = problem
			g.certificates.hasChanged()
		}
	}, problemInterval)
	return nil
}

// retentionInterval is how often records are cleaned up. It bounds how far their number overshoots.
const retentionInterval = time.Minute

// trimmer keeps the retention. Only a leader does: two replicas would delete each other's page.
type trimmer struct {
	store     *store.Store
	retention store.Retention
	log       *slog.Logger
}

// Start trims until ctx ends.
func (t *trimmer) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		count, err := t.store.CleanUp(ctx, t.retention, time.Now())
		if err != nil && ctx.Err() == nil {
			t.log.Warn("failed to clean up audit records", slog.Any("err", err))
		}
		if count > 0 {
			t.log.Info("deleted audit records", slog.Int("count", count))
		}
	}, retentionInterval)
	return nil
}

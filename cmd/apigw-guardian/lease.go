// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// What a replica asks of the lease: the defaults of controller-runtime.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
)

// maxTransitions keeps the count of leaders away from the end of an int32, above which the API server refuses every update.
const maxTransitions = 1 << 30

// maxHolder bounds what the name of a holder adds to a log line.
const maxHolder = 256

// boundedLock is the lease of the leader election. Any client that may update leases can name itself in it for a day, or put in
// numbers that no replica can count on from. The election trusts what it reads, so boundedLock lets it read no longer term
// than a replica asks for: the next leader takes over after 15 s.
type boundedLock struct {
	resourcelock.Interface
	// report is called once for each holder whose term was cut.
	report func(ctx context.Context, record resourcelock.LeaderElectionRecord)

	reported resourcelock.LeaderElectionRecord
}

// newLock makes the lock of one term of leadership.
func (g *guard) newLock() (resourcelock.Interface, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this replica: %w", err)
	}
	identity := resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, g.settings.flags.namespace, guardian.WebhookConfiguration,
		identity, rest.CopyConfig(g.config), renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("make the lock of the leader election: %w", err)
	}
	return &boundedLock{Interface: lock, report: g.leaseTampered}, nil
}

// Get reads the lease. The election compares the returned bytes only with those of the call before.
func (l *boundedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return record, raw, err
	}
	longest := int(leaseDuration / time.Second)
	if record.HolderIdentity != "" && record.LeaseDurationSeconds > longest {
		l.reportOnce(ctx, *record)
	}
	record.LeaseDurationSeconds = min(record.LeaseDurationSeconds, longest)
	if record.LeaderTransitions < 0 || record.LeaderTransitions > maxTransitions {
		record.LeaderTransitions = 0
	}
	return record, raw, nil
}

func (l *boundedLock) reportOnce(ctx context.Context, record resourcelock.LeaderElectionRecord) {
	isSame := record.HolderIdentity == l.reported.HolderIdentity && record.LeaseDurationSeconds == l.reported.LeaseDurationSeconds
	if l.report == nil || isSame {
		return
	}
	l.reported = record
	l.report(ctx, record)
}

// leaseTampered tells of a lease that names a longer term than any replica asks for.
func (g *guard) leaseTampered(ctx context.Context, record resourcelock.LeaderElectionRecord) {
	g.settings.log.Warn("the leader-election lease names a longer term than any replica asks for: it is taken over",
		slog.String("holder", text.Printable(record.HolderIdentity, maxHolder)), slog.Int("seconds", record.LeaseDurationSeconds))
	g.recordTampering(ctx, audit.Event{
		Operation: admissionv1.Update,
		Object:    store.LeaseObject(g.settings.flags.namespace),
		Reason:    audit.LeaseHeld,
		Changed:   []string{"spec.holderIdentity", "spec.leaseDurationSeconds"},
		Message: fmt.Sprintf("The leader-election lease named the holder %q for %d s. A replica takes it over after %s.",
			record.HolderIdentity, record.LeaseDurationSeconds, leaseDuration),
	})
}

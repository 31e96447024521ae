// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// leadingPause is the pause before this replica runs for leadership again.
const leadingPause = time.Second

// lead runs for leadership again and again until ctx ends. Each time has a separate manager: a manager ends for good when it loses
// its lease, which happens whenever the API server is away for some seconds. Serving must go on then.
func (g *Guard) lead(ctx context.Context) {
	for ctx.Err() == nil {
		err := g.leadOnce(ctx)
		if ctx.Err() != nil {
			return // a manager that is stopped may call that an error
		}
		g.options.Log.Warn("leadership ended, serving goes on", slog.Any("err", err))
		pause(ctx, leadingPause)
	}
}

// leadOnce waits for the lease, if there is one, and looks after webhook configuration, certificates, records and reserved resources
// until it or ctx ends.
func (g *Guard) leadOnce(ctx context.Context) error {
	manager, err := g.newManager(ctx)
	if err != nil {
		return fmt.Errorf("set up the leader: %w", err)
	}
	loops := []func(context.Context){
		g.applyDefinitions, g.retainRecords, g.drift.Lead, g.prover.Lead, g.publications.Lead, g.watchNetwork, g.push,
	}
	if !g.options.Controller {
		loops = append(loops, g.certificates.lead, g.publishRecordsProblem, g.forgetCAs)
	}
	for _, run := range loops {
		if err := manager.Add(ctrlmanager.RunnableFunc(endless(run))); err != nil {
			return fmt.Errorf("set up the leader: %w", err)
		}
	}
	if g.options.Controller {
		return manager.Start(ctx)
	}
	keeper := &registration.Keeper{Repairer: g.repairer, Ready: g.server.Listening(), Changes: g.changes}
	if err := keeper.SetupWithManager(manager); err != nil {
		return err
	}
	return manager.Start(ctx)
}

func (g *Guard) newManager(ctx context.Context) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := admissionregistrationv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	lock, err := g.newLock()
	if err != nil {
		return nil, err
	}
	return ctrl.NewManager(g.config, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&admissionregistrationv1.ValidatingWebhookConfiguration{}: {
				Field: fields.OneTermEqualSelector("metadata.name", guardian.WebhookConfiguration),
			},
		}},
		Logger:                              logr.FromSlogHandler(untilDone(ctx, g.options.Log)),
		Metrics:                             metricsserver.Options{BindAddress: "0"},
		LeaderElection:                      g.options.LeaderElect,
		LeaderElectionResourceLockInterface: lock,
		LeaseDuration:                       new(leaseDuration),
		RenewDeadline:                       new(renewDeadline),
		LeaderElectionReleaseOnCancel:       true,
		// A process may lead again before a loop of the last time has ended. It must not hold up the end of the process.
		GracefulShutdownTimeout: new(leaderShutdown),
	})
}

// leaderShutdown is how long the loops of a leader may take to end: less than the shutdown of the server.
const leaderShutdown = 10 * time.Second

// The times that a replica asks for in the lease: the defaults of controller-runtime.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
)

// maxTransitions keeps the count of leaders away from the end of an int32, above which the API server refuses every update.
const maxTransitions = 1 << 30

// maxHolder bounds what the name of a holder adds to a log line.
const maxHolder = 256

// boundedLock is the lease of the leader election. Any client that may update leases can name itself in it for a day, or write
// numbers that no replica can count on from. The election trusts what it reads, so boundedLock lets it read no longer duration
// than a replica asks for: the next leader takes over after 15 s.
type boundedLock struct {
	resourcelock.Interface
	// report is called once for each holder with a longer duration.
	report func(ctx context.Context, record resourcelock.LeaderElectionRecord)

	reported resourcelock.LeaderElectionRecord
}

func (g *Guard) newLock() (resourcelock.Interface, error) {
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, g.options.Namespace, guardian.WebhookConfiguration,
		resourcelock.ResourceLockConfig{Identity: g.name}, rest.CopyConfig(g.config), renewDeadline)
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
	isSame := record.HolderIdentity == l.reported.HolderIdentity && record.LeaseDurationSeconds == l.reported.LeaseDurationSeconds
	if record.HolderIdentity != "" && record.LeaseDurationSeconds > longest && !isSame {
		l.reported = *record
		l.report(ctx, *record)
	}
	record.LeaseDurationSeconds = min(record.LeaseDurationSeconds, longest)
	if record.LeaderTransitions < 0 || record.LeaderTransitions > maxTransitions {
		record.LeaderTransitions = 0
	}
	return record, raw, nil
}

// leaseTampered logs and records a lease with a longer duration than any replica asks for.
func (g *Guard) leaseTampered(ctx context.Context, record resourcelock.LeaderElectionRecord) {
	g.options.Log.Warn("leader-election lease is longer than any replica asks for, taking it over",
		slog.String("holder", text.Printable(record.HolderIdentity, maxHolder)), slog.Int("seconds", record.LeaseDurationSeconds))
	g.recordTampering(ctx, audit.Event{
		Operation: admissionv1.Update,
		Object:    store.LeaseObject(g.options.Namespace),
		Reason:    audit.LeaseHeld,
		Changed:   []string{"spec.holderIdentity", "spec.leaseDurationSeconds"},
		Message: fmt.Sprintf("The leader-election lease named the holder %q for %d s. A replica takes it over after %s.",
			record.HolderIdentity, record.LeaseDurationSeconds, leaseDuration),
	})
}

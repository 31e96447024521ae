// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
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

// leadOnce waits for the lease, if leaders are elected, and keeps the webhook configuration, the certificates and the records
// until the lease is lost or ctx ends.
func (g *Guard) leadOnce(ctx context.Context) error {
	manager, err := g.newManager(ctx)
	if err != nil {
		return fmt.Errorf("set up the leader: %w", err)
	}
	for _, run := range []func(context.Context){g.certificates.lead, g.retainRecords, g.publishRecordsProblem} {
		if err := manager.Add(ctrlmanager.RunnableFunc(endless(run))); err != nil {
			return fmt.Errorf("set up the leader: %w", err)
		}
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

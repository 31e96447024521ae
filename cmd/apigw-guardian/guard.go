// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/facts"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/server"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// guard is the running webhook: what serves, and what keeps it registered.
type guard struct {
	settings *settings
	set      *reserved.Set
	config   *rest.Config
	client   kubernetes.Interface
	lookups  kubernetes.Interface
	metadata metadata.Interface
	manager  ctrl.Manager
	server   *listener
	records  *store.Store
	recorder *recorder.Recorder
	repairer *registration.Repairer

	certificates *certificates
	publisher    *registration.Publisher
	// lastOwner is the owner of the webhook configuration as it was read last; nil before that.
	lastOwner atomic.Pointer[metav1.OwnerReference]
}

// listener is the webhook server of the manager. It loads the certificates before it listens, however long the API server
// takes to come up.
type listener struct {
	*server.Server
	load         func(context.Context) (source, error)
	certificates *certificates
	publisher    *registration.Publisher
	recorder     *recorder.Recorder
}

// Start serves until ctx ends and the drain is over.
func (l *listener) Start(ctx context.Context) error {
	return l.certificates.alongside(ctx, l.load, func() error {
		// Before the first review, so that its denials can be verified.
		if err := l.publisher.Publish(ctx); err != nil {
			l.publisher.Log.Warn("failed to publish the key of this replica", slog.Any("err", err))
		}
		return alongside(l.recorder, func() error { return l.Server.Start(ctx) })
	})
}

func newGuard(shared *sharedFlags, settings *settings) (*guard, error) {
	bridgeLogs(settings.log)
	set, err := shared.set()
	if err != nil {
		return nil, err
	}
	config, err := shared.restConfig()
	if err != nil {
		return nil, err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	// The lookups of decisions have clients without a rate limit: any client of the webhook can cause lookups, and must not keep
	// those of others, or the repair of the webhook configuration, waiting. The limit on requests bounds them.
	unlimited := rest.CopyConfig(config)
	unlimited.QPS = -1
	lookupClient, err := kubernetes.NewForConfig(unlimited)
	if err != nil {
		return nil, fmt.Errorf("make a client of lookups: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(unlimited)
	if err != nil {
		return nil, fmt.Errorf("make a client of lookups: %w", err)
	}
	g := &guard{settings: settings, set: set, config: config, client: clientset, lookups: lookupClient, metadata: metadataClient}
	g.publisher = &registration.Publisher{
		Client: clientset.AdmissionregistrationV1(), Replica: probe.NewReplica(time.Now()), Log: settings.log,
	}
	if g.certificates, err = newCertificates(settings.flags.certificates, settings.log); err != nil {
		return nil, err
	}
	if err := g.addRecorder(); err != nil {
		return nil, err
	}
	if err := g.addServer(); err != nil {
		return nil, err
	}
	if err := g.addRepairer(); err != nil {
		return nil, err
	}
	return g, g.addManager()
}

func (g *guard) run(ctx context.Context) error {
	g.settings.log.Info("starting", slog.String("version", version), slog.String("mode", string(g.settings.mode)),
		slog.Int("reserved", len(g.set.Resources())))
	if err := g.manager.Start(ctx); err != nil {
		return fmt.Errorf("run the webhook: %w", err)
	}
	return nil
}

func (g *guard) addServer() error {
	counters, err := webhook.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	l := &listener{load: g.loadCertificates, certificates: g.certificates, publisher: g.publisher, recorder: g.recorder}
	l.Server, err = server.New(server.Options{
		Listen:         g.settings.flags.listen,
		GetCertificate: g.certificates.serving,
		ClientCAs:      g.certificates.clientCAs(),
		// Who presents no certificate has a small budget of records.
		ClientCertOptional: g.settings.flags.certificates.clientAuth == clientAuthRequest,
		Log:                g.settings.log,
		DrainPeriod:        g.settings.flags.drainPeriod,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := metrics.Registry.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "apigw_guardian_connections_closed_total",
		Help: "Connections closed to make room for new ones: the one that has owed a request longest, or was idle longest.",
	}, func() float64 { return float64(l.Closed()) })); err != nil {
		return fmt.Errorf("register metrics of the server: %w", err)
	}
	writers := policy.DefaultWriters()
	writers.ControllerManager = g.settings.flags.controllerManagers
	writers.NamespaceController = append(writers.NamespaceController, writers.ControllerManager...)
	handler, err := webhook.NewHandler(webhook.Options{
		Policy: &policy.Policy{Set: g.set, Mode: g.settings.mode, Writers: writers},
		Lookup: facts.Cluster{
			Client: g.lookups, Metadata: g.metadata, Config: g.config, Set: g.set, Namespace: g.settings.flags.namespace,
		},
		Recorder:    g.recorder,
		AsksCallers: g.certificates.callers != nil,
		Replica:     g.publisher.Replica,
		Log:         g.settings.log,
		Metrics:     counters,
		Hint:        g.settings.flags.messageHint,
	})
	if err != nil {
		return err
	}
	l.Register(webhook.Path, handler)
	g.server = l
	return nil
}

// addManager runs what every replica does. Nothing of it needs a leader, or an informer.
func (g *guard) addManager() error {
	flags := g.settings.flags
	manager, err := ctrl.NewManager(g.config, ctrl.Options{
		WebhookServer:           g.server,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		GracefulShutdownTimeout: new(flags.drainPeriod + 2*server.DefaultShutdownTimeout + 2*recorder.FlushTimeout),
	})
	if err != nil {
		return fmt.Errorf("set up the webhook: %w", err)
	}
	g.manager = manager
	return errors.Join(
		manager.Add(g.server),
		manager.Add(ctrlmanager.RunnableFunc(g.lead)),
		manager.Add(ctrlmanager.RunnableFunc(g.publisher.Run)),
		manager.Add(ctrlmanager.RunnableFunc(g.certificates.standIn)),
		manager.Add(&registration.Patrol{
			Repairer: g.repairer, Ready: g.server.Listening(), Announce: g.warn,
			FilesDiffer: flags.certificates.mode == certsFiles,
		}),
		g.addPlain(),
	)
}

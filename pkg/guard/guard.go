// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package guard runs a replica: it serves reviews, keeps certificates, records and the webhook configuration, and runs for leadership.
package guard

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/otlp"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/server"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// Options are the settings of a Guard. All fields are required except where the comment says otherwise.
type Options struct {
	Set  *reserved.Set
	Mode policy.Mode
	// SideDoors is Enforce, Observe or Off.
	SideDoors policy.Mode
	// Controller runs only what a leader does for policies: nothing serves reviews, keeps a webhook configuration or follows unlocks, and
	// the fields about these are unused.
	Controller bool
	// Endpoint is the address at which the API server calls the guard.
	Endpoint registration.Endpoint
	// Listen is the TCP address of the webhook server.
	Listen string
	// ProbeListen and MetricsListen are TCP addresses; "" or "0" for no server.
	ProbeListen, MetricsListen string
	// Namespace holds the CA Secret, the leader-election lease and the ConfigMap of credentials.
	Namespace string
	// DrainPeriod is the time to keep serving after the context of Run ends; zero for none.
	DrainPeriod time.Duration
	// LeaderElect is false for a guard with a single replica: it leads at once.
	LeaderElect bool
	// OwnerClusterRole is the ClusterRole that owns the webhook configuration; "" for no owner. If it is deleted while the guard runs on, the
	// ClusterRole with its name and spareSuffix takes over.
	OwnerClusterRole string
	// ApplyCRDs lets the leader apply the CustomResourceDefinitions of the custom resources.
	ApplyCRDs bool
	// ControllerManagers are the user names of kube-controller-manager.
	ControllerManagers []string
	// Unlocks are the settings of unlocks.
	Unlocks policy.UnlockRules
	// MessageHint is the second line of each denial; "" for none.
	MessageHint  string
	Certificates Certificates
	Records      Records
	Drift        Drift
	// Network is optional.
	Network Network
	// Push says where audit records are sent to; without an Endpoint, nowhere.
	Push     otlp.Options
	Registry metrics.RegistererGatherer
	Log      *slog.Logger
}

// Guard is one replica. New makes one, and Run runs it once.
type Guard struct {
	options Options
	config  *rest.Config
	// name identifies this process. No earlier process had it, so that a count that one may still be writing is not continued.
	name string

	client       kubernetes.Interface
	events       events.EventBroadcaster
	eventSource  events.EventRecorder
	certificates *certificates
	records      *store.Store
	recorder     *recorder.Recorder
	pusher       *pusher // nil for none
	publisher    *registration.Publisher
	unlocks      *unlock.Tracker
	server       *server.Server
	repairer     *registration.Repairer
	drift        *drift.Watcher
	prover       *drift.Prover
	publications *drift.Publisher
	ledger       *drift.Ledger
	network      network
	// changes tells the Keeper that wantedConfiguration may return another result than before.
	changes registration.Changes
	reach   reach
	// inherited is nil before the first look at a webhook configuration.
	inherited atomic.Pointer[inherited]
	// lastOwner is the owner of the webhook configuration as it was read last; nil before that.
	lastOwner atomic.Pointer[metav1.OwnerReference]
	// ownerGone is when OwnerClusterRole was first absent; nil while it is there.
	ownerGone atomic.Pointer[time.Time]
}

// New returns a Guard. It makes no API call and opens no port. It fails if a file of client CAs or a spool cannot be used.
func New(config *rest.Config, options Options) (*Guard, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this replica: %w", err)
	}
	g := &Guard{options: options, config: config, name: host + "-" + rand.String(8), changes: registration.NewChanges()}
	if g.client, err = newClient(brisk(config)); err != nil {
		return nil, err
	}
	g.publisher = &registration.Publisher{
		Client: g.client.AdmissionregistrationV1(), Replica: probe.NewReplica(time.Now()), Log: options.Log,
		Bundle: func() []byte { return g.certificates.ownBundle() },
	}
	if g.certificates, err = newCertificates(options.Certificates.ClientCA, options.Registry, options.Log); err != nil {
		return nil, err
	}
	for _, add := range []func() error{
		g.addEvents, g.addRecorder, g.addUnlocks, g.addServer, g.addRepairer, g.addDrift,
	} {
		if err := add(); err != nil {
			return nil, err
		}
	}
	g.addReach()
	g.addNetwork()
	g.addPusher()
	return g, nil
}

// newClient makes a client with a separate rate limit.
func newClient(config *rest.Config) (*kubernetes.Clientset, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return client, nil
}

// brisk returns a configuration for a repair of the webhook configuration, which takes four requests: client-go's default of five a second
// makes the second repair in a row wait.
func brisk(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 20, 40
	return config
}

// unlimited returns a configuration without a rate limit on the client's side.
func unlimited(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	return config
}

// ShutdownGrace is how long Run may take after the drain period: for the last answers, the removal of the published CAs, and the last
// records. The terminationGracePeriodSeconds of a Pod must be longer than both.
const ShutdownGrace = server.ShutdownTimeout + registration.LeaveTimeout + recorder.FlushTimeout

// Run serves until ctx ends, drains, and returns nil, within DrainPeriod and ShutdownGrace. Run returns an error if it cannot bind a port
// or use the stored certificates.
func (g *Guard) Run(ctx context.Context) error {
	probes, err := g.newProbes(ctx)
	if err != nil {
		return err
	}
	scrapes, err := g.newMetrics(ctx)
	if err != nil {
		return err
	}
	// Probes, metrics, records and Events outlast the drain, so that the last answers are recorded. So do the unlocks: a replica that
	// drains still answers reviews, and must honour the same unlocks as the other replicas.
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := g.events.StartRecordingToSinkWithContext(lasting); err != nil {
		return fmt.Errorf("start to record events: %w", err)
	}
	defer g.events.Shutdown()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	followUnlocks := func(lasting context.Context) { g.unlocks.Run(lasting, ctx.Done()) }
	var support errgroup.Group
	supports := []func(context.Context) error{probes, scrapes, endless(g.recorder.Run)}
	if !g.options.Controller {
		supports = append(supports, endless(followUnlocks))
	}
	for _, run := range supports {
		support.Go(func() error {
			defer stop() // it ends before lasting only if it fails
			return run(lasting)
		})
	}
	err = g.runLoops(ctx)
	end()
	return errors.Join(err, support.Wait())
}

// runLoops runs what ends with ctx. An error of one ends the others.
func (g *Guard) runLoops(ctx context.Context) error {
	patrol := &registration.Patrol{
		Repairer: g.repairer, Ready: g.server.Listening(), FilesDiffer: g.options.Certificates.Dir != "",
	}
	group, ctx := errgroup.WithContext(ctx)
	loops := []func(context.Context) error{endless(g.lead), endless(g.checkKinds)}
	if !g.options.Controller {
		loops = append(loops, g.serve, endless(g.publisher.Run), endless(g.proveReach), endless(g.claimLeadership),
			endless(g.certificates.follow), endless(g.certificates.standIn), endless(patrol.Run), endless(g.note))
	}
	for _, run := range loops {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

// endless adapts a function that ends with its context and cannot fail.
func endless(run func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error {
		run(ctx)
		return nil
	}
}

// checkInterval is the time between two questions to an API server that does not answer.
const checkInterval = 10 * time.Second

// checkKinds logs reserved kinds that the API server does not serve, as soon as it answers. The guard keeps running: a client that
// deletes a CustomResourceDefinition must not stop the protection of the other kinds.
func (g *Guard) checkKinds(ctx context.Context) {
	_ = wait.PollUntilContextCancel(ctx, checkInterval, true, func(context.Context) (bool, error) {
		err := g.options.Set.CheckServed(g.client.Discovery().ServerResourcesForGroupVersion)
		isAnswer := err == nil || errors.Is(err, reserved.ErrNotServed)
		if err != nil {
			g.options.Log.Error("failed to find reserved kinds in discovery", slog.Any("err", err))
		}
		return isAnswer, nil
	})
}

// serve loads the certificates, however long the API server takes to come up, and answers reviews until the drain is over.
func (g *Guard) serve(ctx context.Context) error {
	if err := g.loadCertificates(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	// Before the first review, so that its denials can be verified.
	if err := g.publisher.Publish(ctx); err != nil {
		g.options.Log.Warn("failed to publish the key of this replica", slog.Any("err", err))
	}
	defer g.publisher.Leave(context.WithoutCancel(ctx)) // API servers may call this replica until the drain is over
	return g.server.Start(ctx)
}

func (g *Guard) addServer() error {
	handler, err := g.newHandler()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(webhook.Path, handler)
	var clientCAs func() *x509.CertPool
	if g.certificates.callers != nil {
		clientCAs = g.certificates.callers.Pool
	}
	g.server = server.New(server.Options{
		Listen:             g.options.Listen,
		Handler:            mux,
		GetCertificate:     g.certificates.serving,
		ClientCAs:          clientCAs,
		ClientCertOptional: g.options.Certificates.ClientCertOptional,
		Log:                g.options.Log,
		DrainPeriod:        g.options.DrainPeriod,
	})
	register := promauto.With(g.options.Registry)
	register.NewCounterFunc(prometheus.CounterOpts{
		Name: "apigw_guardian_connections_closed_total",
		Help: "Connections closed to make room for new ones: the one that has owed a request longest, or was idle longest, of the source " +
			"address with most of them.",
	}, func() float64 { return float64(g.server.Closed()) })
	register.NewCounterFunc(prometheus.CounterOpts{
		Name: "apigw_guardian_requests_refused_total",
		Help: "Requests answered with 503 because too many were in flight. The API server refuses the write, unless the guard observes.",
	}, func() float64 { return float64(g.server.Refused()) })
	return nil
}

func (g *Guard) newHandler() (*webhook.Handler, error) {
	answers, err := g.newLookups()
	if err != nil {
		return nil, err
	}
	writers := policy.DefaultWriters()
	writers.ControllerManager = g.options.ControllerManagers
	writers.NamespaceController = append(writers.NamespaceController, writers.ControllerManager...)
	return &webhook.Handler{
		Policy: &policy.Policy{
			Set: g.options.Set, Mode: g.options.Mode, SideDoors: g.options.SideDoors, Unlocks: g.options.Unlocks, Writers: writers,
		},
		Lookup:      answers,
		Unlocks:     g.unlocks,
		Recorder:    g.recorder,
		ExtraKeys:   g.options.Records.ExtraKeys,
		AsksCallers: g.certificates.callers != nil,
		Replica:     g.publisher.Replica,
		Log:         g.options.Log,
		Metrics:     webhook.NewMetrics(g.options.Registry),
		Hint:        g.options.MessageHint,
	}, nil
}

// addUnlocks makes the tracker of the unlocks.
func (g *Guard) addUnlocks() error {
	var err error
	g.unlocks, err = unlock.NewTracker(unlock.Options{
		Config: g.config, Rules: g.options.Unlocks, Replica: g.name, Namespace: g.options.Namespace, Log: g.options.Log,
		Announce: func(u *v1alpha1.Unlock, reason, note string) {
			object := &corev1.ObjectReference{
				APIVersion: v1alpha1.GroupVersion().String(), Kind: "Unlock", Name: u.Name, UID: u.UID,
			}
			g.eventSource.Eventf(object, nil, corev1.EventTypeNormal, reason, "Unlock", "%s", note)
		},
	})
	return err
}

// newLookups returns lookups without a rate limit. Any client of the API server can cause lookups, and must not delay those of
// other clients or the repair of the webhook configuration. The server's limit on requests bounds them.
func (g *Guard) newLookups() (lookups, error) {
	config := unlimited(g.config)
	client, err := newClient(config)
	if err != nil {
		return lookups{}, err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return lookups{}, fmt.Errorf("make a client of object metadata: %w", err)
	}
	return lookups{
		reader: lookup.Reader{Client: client, Config: g.config, Namespace: g.options.Namespace}, metadata: objects, set: g.options.Set,
	}, nil
}

// addEvents makes the source of Events, with a separate rate limit.
func (g *Guard) addEvents() error {
	client, err := newClient(g.config)
	if err != nil {
		return err
	}
	g.events = events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	g.eventSource = g.events.NewRecorder(scheme.Scheme, guardian.Name)
	return nil
}

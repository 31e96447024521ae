// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// The pauses between attempts while the API server refuses.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Changes tells a Keeper that its Repairer's Build may return another result than before. It is safe for concurrent use.
type Changes chan event.GenericEvent

// NewChanges returns a Changes that outlives Keepers, which use it one after the other.
func NewChanges() Changes { return make(Changes, 1) }

// Notify never blocks.
func (c Changes) Notify() {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	configuration.Name = guardian.WebhookConfiguration
	select {
	case c <- event.GenericEvent{Object: configuration}:
	default: // a change is pending already
	}
}

// Keeper applies the webhook configuration once the guard answers, and repairs it as soon as another client deletes or edits it.
// Only the leader runs it: during an upgrade, two versions would undo each other's changes. Every replica runs a Patrol.
type Keeper struct {
	Repairer *Repairer
	// Ready is closed when the guard answers reviews. A webhook configuration before that would refuse every write it covers.
	Ready   <-chan struct{}
	Changes Changes
}

// SetupWithManager lets the manager run the Keeper. The manager's cache must hold no other webhook configuration than the guard's.
func (k *Keeper) SetupWithManager(manager ctrl.Manager) error {
	k.Changes.Notify() // a webhook configuration that does not exist raises no event
	err := ctrl.NewControllerManagedBy(manager).
		Named("registration").
		For(&admissionregistrationv1.ValidatingWebhookConfiguration{}).
		WatchesRawSource(source.Channel(k.Changes, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			SkipNameValidation: new(true), // a process may lead several times, each with its Keeper
			RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Complete(k)
	if err != nil {
		return fmt.Errorf("set up the keeper of the webhook configuration: %w", err)
	}
	return nil
}

// Reconcile waits for Ready, and then restores the webhook configuration. While the owner is gone, it asks again: it may come back.
func (k *Keeper) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if request.Name != guardian.WebhookConfiguration || !waitFor(ctx, k.Ready) {
		return reconcile.Result{}, nil
	}
	err := k.Repairer.Keep(ctx)
	if errors.Is(err, ErrOwnerGone) {
		return reconcile.Result{RequeueAfter: lookInterval}, nil
	}
	if paused, ok := errors.AsType[*pausedError](err); ok {
		return reconcile.Result{RequeueAfter: max(paused.left, firstRetry)}, nil
	}
	return reconcile.Result{}, err
}

// waitFor reports whether ready came before the end of ctx.
func waitFor(ctx context.Context, ready <-chan struct{}) bool {
	select {
	case <-ready:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	// lookInterval is the time between two looks of a replica.
	lookInterval = 5 * time.Second
	// lookTimeout bounds a look: an API server that hangs must not hide the next look.
	lookTimeout = 10 * time.Second
	// patience is how long a replica leaves a repair to the leader, which makes it within a second.
	patience = 15 * time.Second
	// upgradePatience is how long a replica leaves another revision, a CA bundle with more CAs than its own, and with provided files
	// any other CA bundle: longer than a rolling upgrade has two versions, than kubelets differ in a mounted Secret (about 90 s), and
	// than replicas that made their own CA at the same time take to agree on one.
	upgradePatience = 2 * time.Minute
)

// Patrol looks at the webhook configuration from every replica, whether it leads or not, and repairs it where the leader does not:
// there may be no leader, its watch may hang, or another client may hold the lease.
type Patrol struct {
	// Repairer is that of the Keeper.
	Repairer *Repairer
	// Ready is closed when the guard answers reviews.
	Ready <-chan struct{}
	// FilesDiffer says that replicas may hold different CA bundles for a while: those of provided files.
	FilesDiffer bool

	// since is when a look first found the webhook configuration not in place; zero while it is.
	since time.Time
	// said is what was logged last.
	said string
}

// Run looks until ctx ends.
func (p *Patrol) Run(ctx context.Context) {
	if !waitFor(ctx, p.Ready) {
		return
	}
	wait.UntilWithContext(ctx, p.round, lookInterval)
}

// round looks once, and repairs if the webhook configuration has not been in place for long enough.
func (p *Patrol) round(ctx context.Context) {
	p.Repairer.mu.Lock()
	defer p.Repairer.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	live, want, err := p.Repairer.look(ctx)
	if err != nil {
		p.Repairer.inPlace.Store(false)
		p.complain(err)
		return
	}
	found := judge(live, want)
	if p.Repairer.settled(live, want) || found == inPlace {
		p.Repairer.inPlace.Store(true)
		p.since, p.said = time.Time{}, ""
		return
	}
	p.Repairer.inPlace.Store(false)
	if p.since.IsZero() {
		p.since = time.Now()
	}
	if time.Since(p.since) < p.patience(found) {
		return
	}
	if err := p.Repairer.repair(ctx, live, want); err != nil {
		p.complain(err)
		return
	}
	p.Repairer.options.Log.Warn("webhook configuration was not in place and no leader repaired it", slog.String("state", string(found)))
	p.since = time.Time{}
}

func (p *Patrol) patience(found state) time.Duration {
	if found == unproven {
		return 0
	}
	if found == otherRevision || found == moreCAs || found == otherCA && p.FilesDiffer {
		return upgradePatience
	}
	return patience
}

// complain logs once why this replica cannot look or repair, and again when the reason changes. The end of the patrol is no reason.
func (p *Patrol) complain(err error) {
	_, isPaused := errors.AsType[*pausedError](err) // the Repairer has said why
	if p.said == err.Error() || isPaused || errors.Is(err, context.Canceled) {
		return
	}
	p.said = err.Error()
	if !errors.Is(err, ErrOwnerGone) {
		p.Repairer.options.Log.Warn("failed to look after the webhook configuration", slog.Any("err", err))
		return
	}
	p.Repairer.options.Log.Warn("not registering: the release that owns the webhook configuration is gone")
	p.Repairer.options.Announce("OwnerGone", "The ClusterRole that owns the webhook configuration is gone. The guard leaves the webhook "+
		"configuration away, and protects nothing, until the ClusterRole is back.")
}

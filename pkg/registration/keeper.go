// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
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

var _ reconcile.Reconciler = (*Keeper)(nil)

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

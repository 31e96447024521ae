// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// The pace of repeated attempts while the API server refuses.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Keeper puts the webhook configuration in place once the guard answers, and puts it back as soon as another client deletes or
// edits it. Where leaders are elected, only the leader runs it: during an upgrade, the old and the new version would undo each
// other's webhook configuration. Every replica runs a Patrol.
type Keeper struct {
	Repairer *Repairer
	// Ready is closed when the guard answers reviews. A webhook configuration before that would refuse every write it covers.
	Ready <-chan struct{}
	// Changed says that Build may return something else than before; nil for never.
	Changed <-chan struct{}
}

var _ reconcile.Reconciler = (*Keeper)(nil)

// SetupWithManager lets the manager run the keeper. The manager's cache must hold no other webhook configuration than Name.
func (k *Keeper) SetupWithManager(manager ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(manager).
		Named("registration").
		For(&admissionregistrationv1.ValidatingWebhookConfiguration{}).
		WatchesRawSource(source.Func(k.enqueueWhenReady)).
		WithOptions(controller.Options{
			SkipNameValidation: new(true), // a process may have several terms of leadership, each with its keeper
			RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Complete(k)
	if err != nil {
		return fmt.Errorf("set up the keeper of the webhook configuration: %w", err)
	}
	return nil
}

// enqueueWhenReady starts the first round, as a webhook configuration that does not exist raises no event, and one for each change
// of what is wanted.
func (k *Keeper) enqueueWhenReady(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	go func() {
		for again := waitFor(ctx, k.Ready); again; again = waitFor(ctx, k.Changed) {
			queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: guardian.WebhookConfiguration}})
		}
	}()
	return nil
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

// Reconcile compares the live webhook configuration with what it must be, and writes only where they differ. While the owner is
// gone it asks again: the owner may come back.
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// FieldManager owns what the guard writes.
const FieldManager = "apigw-guardian"

// The pace of repeated attempts while the API server refuses.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// ErrOwnerGone says that the object which owns the registration is gone: what it belonged to is being uninstalled, and nobody
// may put the registration back.
var ErrOwnerGone = errors.New("owner of the registration is gone")

// Keeper puts the registration in place once the guard answers, and puts it back whenever somebody deletes or edits it.
//
// It is one of the things that only a leader does where leaders are elected: during an upgrade, the old and the new version
// would undo each other's registration.
type Keeper struct {
	// Client reads from a cache that holds the registration, and writes.
	Client client.Client
	// Build returns the registration as it must be. It is called only after Ready. With ErrOwnerGone, the registration is left
	// as it is, or absent.
	Build func(context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error)
	// Ready is closed when the guard answers reviews. A registration before that would refuse every write it covers.
	Ready <-chan struct{}
	// Changed says that Build may return something else than before; nil for never.
	Changed <-chan struct{}
	Log     *slog.Logger

	// last is the registration that was wanted and in place last.
	last atomic.Pointer[admissionregistrationv1.ValidatingWebhookConfiguration]
}

var _ reconcile.Reconciler = (*Keeper)(nil)

// SetupWithManager lets the manager run the keeper. The manager's cache must hold no other registration than Name.
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
		return fmt.Errorf("set up the keeper of the registration: %w", err)
	}
	return nil
}

// enqueueWhenReady starts the first round, as a registration that does not exist raises no event, and one for each change of
// what is wanted.
func (k *Keeper) enqueueWhenReady(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	go func() {
		for again := k.waitReady(ctx); again; again = k.waitChanged(ctx) {
			queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: Name}})
		}
	}()
	return nil
}

func (k *Keeper) waitChanged(ctx context.Context) bool {
	select {
	case <-k.Changed:
		return true
	case <-ctx.Done():
		return false
	}
}

func (k *Keeper) waitReady(ctx context.Context) bool {
	select {
	case <-k.Ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// Reconcile compares the live registration with what it must be, and writes only where they differ.
func (k *Keeper) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if request.Name != Name || !k.waitReady(ctx) {
		return reconcile.Result{}, nil
	}
	want, err := k.Build(ctx)
	if errors.Is(err, ErrOwnerGone) {
		k.Log.Info("not registering: the release that owns the registration is gone")
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	live := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	err = k.Client.Get(ctx, request.NamespacedName, live)
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, k.create(ctx, want)
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("read the registration: %w", err)
	case asWanted(live, want):
		k.last.Store(want)
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, k.putBack(ctx, live, want)
}

// create uses a PATCH, as the permission to create by it can be limited to one name; that of a POST cannot.
func (k *Keeper) create(ctx context.Context, want *admissionregistrationv1.ValidatingWebhookConfiguration) error {
	//nolint:staticcheck // client.Apply takes the typed object; its successor wants generated apply configurations
	err := k.Client.Patch(ctx, want, client.Apply, client.FieldOwner(FieldManager), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply the registration: %w", err)
	}
	k.Log.Info("registration applied", slog.Int("entries", len(want.Webhooks)))
	k.last.Store(want)
	return nil
}

// putBack replaces the whole list of entries, which an apply would merge with those that others have added.
func (k *Keeper) putBack(ctx context.Context, live, want *admissionregistrationv1.ValidatingWebhookConfiguration) error {
	changed := live.DeepCopy()
	changed.Webhooks = want.Webhooks
	changed.OwnerReferences, changed.Finalizers = want.OwnerReferences, want.Finalizers
	changed.Labels = merged(live.Labels, want.Labels)
	changed.Annotations = merged(live.Annotations, want.Annotations)
	if err := k.Client.Update(ctx, changed, client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("put the registration back: %w", err)
	}
	if k.isFollowing(live) {
		k.Log.Info("registration follows the certificates")
	} else {
		k.Log.Warn("registration was changed, and is put back", slog.Int("entries", len(want.Webhooks)))
	}
	k.last.Store(want)
	return nil
}

// isFollowing says that nobody has touched the registration since it was as wanted: it is the wish that has changed.
func (k *Keeper) isFollowing(live *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	last := k.last.Load()
	return last != nil && asWanted(live, last)
}

// asWanted reports whether the live registration works as it must. Labels and annotations that others have added do no
// harm; an owner does: the garbage collector would delete the registration with it.
func asWanted(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	return equality.Semantic.DeepEqual(live.Webhooks, want.Webhooks) &&
		equality.Semantic.DeepEqual(live.OwnerReferences, want.OwnerReferences) &&
		equality.Semantic.DeepEqual(live.Finalizers, want.Finalizers) &&
		maps.Equal(live.Labels, merged(live.Labels, want.Labels)) &&
		maps.Equal(live.Annotations, merged(live.Annotations, want.Annotations))
}

func merged(base, over map[string]string) map[string]string {
	result := map[string]string{}
	maps.Copy(result, base)
	maps.Copy(result, over)
	return result
}

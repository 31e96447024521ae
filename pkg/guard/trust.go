// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

const (
	// inheritance is how long a replica keeps the CAs that the webhook configuration had when it started: replicas of a version that
	// does not publish its CAs may serve with them. A rolling upgrade is over by then.
	inheritance = 10 * time.Minute
	// trustInterval is how often the leader looks whether CAs have become too old.
	trustInterval = time.Minute
	// claimPatience is how long a replica waits for the leader to add its CAs before it takes the leadership.
	claimPatience = 15 * time.Second
)

// inherited is the CA bundle of the webhook configuration as this replica saw it first.
type inherited struct {
	bundle []byte
	until  time.Time
}

// trusted returns the CAs that API servers must trust: this replica's own, those of the other replicas, and those of replicas of an
// older version. So any change of the source of certificates is a rolling upgrade in which both sources are trusted.
func (g *Guard) trusted(own []byte, live *admissionregistrationv1.ValidatingWebhookConfiguration) []byte {
	now := time.Now()
	if live == nil {
		return registration.Union(own)
	}
	published := registration.PublishedCAs(live.Annotations, now)
	if g.inherited.Load() == nil {
		unpublished := registration.Without(registration.Bundle(live), published)
		g.inherited.CompareAndSwap(nil, &inherited{bundle: unpublished, until: now.Add(inheritance)})
	}
	bundle := registration.Union(own, published)
	if old := g.inherited.Load(); now.Before(old.until) {
		bundle = registration.Union(bundle, old.bundle)
	}
	return bundle
}

// forgetCAs lets the leader remove CAs that have become too old, until ctx ends.
func (g *Guard) forgetCAs(ctx context.Context) {
	wait.UntilWithContext(ctx, func(context.Context) { g.changes.Notify() }, trustInterval)
}

// claimLeadership takes the lease from a leader that does not add this replica's CAs to the webhook configuration, until API servers
// trust this replica or ctx ends. A version of the guard that knows only its own CAs may lead, and this replica cannot become ready.
func (g *Guard) claimLeadership(ctx context.Context) {
	if !g.options.LeaderElect || !g.certificates.awaitLoaded(ctx) {
		return
	}
	var since time.Time
	for !g.certificates.state().Trusted && pause(ctx, time.Second) {
		bundle, exists, err := g.registered(ctx)
		own := g.certificates.source.Bundle()
		switch {
		case err != nil || !exists || bytes.Equal(registration.Union(bundle, own), registration.Union(bundle)):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= claimPatience:
			if err := g.claimLease(ctx); err != nil && ctx.Err() == nil {
				g.options.Log.Warn("failed to take the leadership", slog.Any("err", err))
			}
			since = time.Time{}
		}
	}
}

// claimLease names another holder in the lease until the leader has given up, and then this replica. The leader would otherwise undo
// the writes of this one for as long as it tries to renew its lease.
func (g *Guard) claimLease(ctx context.Context) error {
	leases := g.client.CoordinationV1().Leases(g.options.Namespace)
	lease, err := leases.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder == g.name {
		return nil
	}
	g.options.Log.Warn("the leader does not add the CA of this replica to the webhook configuration, taking the leadership")
	for _, holder := range []string{g.name + "-claim", g.name} {
		now := metav1.NowMicro()
		patch, _ := json.Marshal(map[string]any{"spec": coordinationv1.LeaseSpec{ // these types always marshal
			HolderIdentity: &holder, LeaseDurationSeconds: new(int32(leaseDuration / time.Second)), AcquireTime: &now, RenewTime: &now,
		}})
		_, err = leases.Patch(ctx, guardian.WebhookConfiguration, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: guardian.FieldManager})
		if err != nil {
			return fmt.Errorf("write the lease: %w", err)
		}
		if holder != g.name && !pause(ctx, renewDeadline+2*time.Second) {
			return ctx.Err()
		}
	}
	return nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

const (
	// maxReplicaKeys bounds the public keys on the webhook configuration. The oldest go first; a running replica publishes its key again.
	maxReplicaKeys = 32
	// publishPoll is the pause between two looks for the key.
	publishPoll = 5 * time.Second
	// publishTimeout bounds one look.
	publishTimeout = 5 * time.Second
	// LeaveTimeout bounds Leave.
	LeaveTimeout = 2 * time.Second
)

// Publisher keeps the public key of this replica, and the CAs with which it serves, on the webhook configuration. Every replica runs
// one. It changes only annotations that begin with guardian.ReplicaAnnotationPrefix or guardian.CAAnnotationPrefix, and creates nothing.
type Publisher struct {
	Client  admissionregistrationv1client.ValidatingWebhookConfigurationsGetter
	Replica *probe.Replica
	// Bundle returns the CAs that API servers must trust to call this replica, in PEM; empty while there are none.
	Bundle func() []byte
	Log    *slog.Logger
}

// Run publishes key and CAs, and publishes them again if they are missing, until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := p.Publish(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("failed to publish the key of this replica", slog.Any("err", err))
		}
	}, publishPoll)
}

// Leave removes the CAs, after Run has ended: when the last replica that serves with a CA has gone, API servers need not trust it.
func (p *Publisher) Leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, LeaveTimeout)
	defer cancel()
	live, err := p.Client.ValidatingWebhookConfigurations().Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err == nil && live.Annotations[p.caAnnotation()] != "" {
		_ = p.annotate(ctx, map[string]any{p.caAnnotation(): nil}) // or they get too old
	}
}

func (p *Publisher) id() string {
	return strings.TrimPrefix(p.Replica.KeyAnnotation(), guardian.ReplicaAnnotationPrefix)
}

func (p *Publisher) caAnnotation() string { return guardian.CAAnnotationPrefix + p.id() }

// Publish writes what the webhook configuration lacks, if it exists, and removes the oldest keys above maxReplicaKeys, and CAs of
// replicas that do not count.
func (p *Publisher) Publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	live, err := p.Client.ValidatingWebhookConfigurations().Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the webhook configuration: %w", err)
	}
	changes, now := map[string]any{}, time.Now()
	if _, published := probe.KeysOf(live.Annotations)[p.id()]; !published {
		p.Replica.Renew(now)
		changes[p.Replica.KeyAnnotation()] = p.Replica.Publication()
		for _, name := range surplus(live.Annotations, maxReplicaKeys-1) {
			changes[name] = nil // null removes it
		}
	}
	if bundle := p.Bundle(); len(bundle) > 0 && !isPublished(live.Annotations[p.caAnnotation()], bundle, now) {
		counting := publishers(live.Annotations, now)
		for name := range live.Annotations {
			if strings.HasPrefix(name, guardian.CAAnnotationPrefix) && !slices.Contains(counting, name) {
				changes[name] = nil
			}
		}
		changes[p.caAnnotation()] = publication(bundle, now)
	}
	if len(changes) == 0 {
		return nil
	}
	return p.annotate(ctx, changes)
}

func (p *Publisher) annotate(ctx context.Context, changes map[string]any) error {
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": changes}}) // these types always marshal
	// Not an apply: that would create a webhook configuration without webhooks after a deletion.
	options := metav1.PatchOptions{FieldManager: guardian.FieldManager + "-replica"}
	_, err := p.Client.ValidatingWebhookConfigurations().Patch(ctx, guardian.WebhookConfiguration, types.MergePatchType, patch, options)
	if err != nil {
		return fmt.Errorf("publish key and CAs of this replica on the webhook configuration: %w", err)
	}
	return nil
}

// Annotations returns the key as Build takes it: a webhook configuration that is created has it at once.
func (p *Publisher) Annotations() map[string]string {
	return map[string]string{p.Replica.KeyAnnotation(): p.Replica.Publication()}
}

// surplus returns the annotations of all but the newest maxKeys keys.
func surplus(annotations map[string]string, maxKeys int) []string {
	var names []string
	for name := range annotations {
		if strings.HasPrefix(name, guardian.ReplicaAnnotationPrefix) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { // newest first
		return cmp.Or(probe.PublishedAt(annotations[b]).Compare(probe.PublishedAt(annotations[a])), strings.Compare(a, b))
	})
	return names[min(len(names), maxKeys):]
}

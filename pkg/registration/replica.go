// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

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
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

const (
	// MaxReplicaKeys is how many public keys the webhook configuration holds at most. The oldest ones leave first; a replica
	// that runs publishes its key again.
	MaxReplicaKeys = 32
	// publishPoll is the pause between two looks for the key.
	publishPoll = 5 * time.Second
	// publishTimeout bounds one look.
	publishTimeout = 5 * time.Second
)

// Publisher keeps the public key of this replica on the webhook configuration. Every replica runs one. It changes nothing
// but annotations that begin with guardian.ReplicaAnnotationPrefix, and creates nothing.
type Publisher struct {
	Client  admissionregistrationv1client.ValidatingWebhookConfigurationsGetter
	Replica *probe.Replica
	Log     *slog.Logger
}

// Run publishes the key, and publishes it again where it is missing, until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	for {
		if err := p.Publish(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("failed to publish the key of this replica", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(publishPoll):
		}
	}
}

// Publish writes the key where the webhook configuration lacks it, and removes the oldest keys above MaxReplicaKeys. It does
// nothing while there is no webhook configuration.
func (p *Publisher) Publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	configurations := p.Client.ValidatingWebhookConfigurations()
	live, err := configurations.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the webhook configuration: %w", err)
	}
	if _, published := probe.KeysOf(live.Annotations)[strings.TrimPrefix(p.Replica.KeyAnnotation(), guardian.ReplicaAnnotationPrefix)]; published {
		return nil
	}
	p.Replica.Renew(time.Now())
	changes := map[string]any{p.Replica.KeyAnnotation(): p.Replica.Publication()}
	for _, name := range surplus(live.Annotations, MaxReplicaKeys-1) {
		changes[name] = nil // null removes it
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": changes}})
	if err != nil {
		return fmt.Errorf("write the key of this replica as JSON: %w", err)
	}
	// Not an apply: that would create the webhook configuration, without webhooks, where it has just been deleted.
	_, err = configurations.Patch(ctx, guardian.WebhookConfiguration, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: guardian.FieldManager + "-replica"})
	if err != nil {
		return fmt.Errorf("publish the key of this replica on the webhook configuration: %w", err)
	}
	return nil
}

// Annotations returns the key as Build takes it: a webhook configuration that is created has it at once.
func (p *Publisher) Annotations() map[string]string {
	return map[string]string{p.Replica.KeyAnnotation(): p.Replica.Publication()}
}

// surplus returns the annotations with the oldest keys, so that as many as max remain.
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

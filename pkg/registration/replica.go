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
)

// Publisher keeps the public key of this replica on the webhook configuration. Every replica runs one. It changes only annotations
// that begin with guardian.ReplicaAnnotationPrefix, and creates nothing.
type Publisher struct {
	Client  admissionregistrationv1client.ValidatingWebhookConfigurationsGetter
	Replica *probe.Replica
	Log     *slog.Logger
}

// Run publishes the key, and publishes it again if it is missing, until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := p.Publish(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("failed to publish the key of this replica", slog.Any("err", err))
		}
	}, publishPoll)
}

// Publish writes the key if the webhook configuration exists and lacks it, and removes the oldest keys above maxReplicaKeys.
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
	id := strings.TrimPrefix(p.Replica.KeyAnnotation(), guardian.ReplicaAnnotationPrefix)
	if _, published := probe.KeysOf(live.Annotations)[id]; published {
		return nil
	}
	p.Replica.Renew(time.Now())
	changes := map[string]any{p.Replica.KeyAnnotation(): p.Replica.Publication()}
	for _, name := range surplus(live.Annotations, maxReplicaKeys-1) {
		changes[name] = nil // null removes it
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": changes}})
	if err != nil {
		return fmt.Errorf("write the key of this replica as JSON: %w", err)
	}
	// Not an apply: that would create a webhook configuration without webhooks after a deletion.
	options := metav1.PatchOptions{FieldManager: guardian.FieldManager + "-replica"}
	_, err = configurations.Patch(ctx, guardian.WebhookConfiguration, types.MergePatchType, patch, options)
	if err != nil {
		return fmt.Errorf("publish the key of this replica on the webhook configuration: %w", err)
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

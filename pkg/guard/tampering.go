// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// repaired records a repair of the webhook configuration. The user is not known: the API server calls no webhook for one.
func (g *Guard) repaired(ctx context.Context, repair registration.Repair) {
	event := audit.Event{
		Operation: repair.Operation, Object: store.RegistrationObject(),
		Reason: audit.RegistrationChanged, Changed: repair.Changed, Message: "Another client changed the webhook configuration.",
	}
	if repair.Operation == admissionv1.Delete {
		event.Reason, event.Message = audit.RegistrationDeleted, "Another client deleted the webhook configuration."
	}
	if repair.Manager != "" {
		event.Message += fmt.Sprintf(" The field manager that wrote it last is %q, at %s.", repair.Manager, repair.At.UTC().Format(time.RFC3339))
	}
	event.Message += " The guard repaired it."
	g.recordTampering(ctx, event)
}

// recordTampering records a change to an object that the guard depends on.
func (g *Guard) recordTampering(ctx context.Context, event audit.Event) {
	event.Time, event.Outcome, event.Source = time.Now(), v1alpha1.Tampered, v1alpha1.SourceGuard
	g.recorder.Record(ctx, event)
}

// warn emits an Event about the webhook configuration.
func (g *Guard) warn(reason, note string) {
	g.eventSource.Eventf(&corev1.ObjectReference{
		APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: guardian.WebhookConfiguration,
	}, nil, corev1.EventTypeWarning, reason, string(v1alpha1.Tampered), "%s", note)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// repaired records a repair of the webhook configuration. The user is not known: no webhook is asked about a webhook configuration.
func (g *guard) repaired(ctx context.Context, repair registration.Repair) {
	fact := audit.Event{
		Operation: repair.Operation, Object: store.RegistrationObject(),
		Reason: audit.RegistrationChanged, Changed: repair.Changed, Message: "Another client changed the webhook configuration.",
	}
	if repair.Operation == admissionv1.Delete {
		fact.Reason, fact.Message = audit.RegistrationDeleted, "Another client deleted the webhook configuration."
	}
	if repair.Manager != "" {
		fact.Message += fmt.Sprintf(" The field manager that wrote it last is %q, at %s.", repair.Manager, repair.At.UTC().Format(time.RFC3339))
	}
	fact.Message += " The guard repaired it."
	g.recordTampering(ctx, fact)
}

// recordTampering stores a fact as tampering with what the guard itself rests on. The recorder sees to it that it is not lost, and
// to its Event.
func (g *guard) recordTampering(ctx context.Context, fact audit.Event) {
	fact.Time, fact.Outcome, fact.Source = time.Now(), v1alpha1.Tampered, v1alpha1.SourceGuard
	g.recorder.Record(ctx, fact)
}

// warn makes an Event of the webhook configuration.
func (g *guard) warn(reason, note string) {
	g.manager.GetEventRecorder(guardian.WebhookConfiguration).Eventf(&corev1.ObjectReference{
		APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: guardian.WebhookConfiguration,
	}, nil, corev1.EventTypeWarning, reason, string(v1alpha1.Tampered), "%s", note)
}

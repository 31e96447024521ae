// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// addRepairer makes the Repairer with a separate client and rate limit: reads of the certificates must not delay a repair.
func (g *Guard) addRepairer() error {
	client, err := newClient(brisk(g.config))
	if err != nil {
		return err
	}
	g.repairer = registration.NewRepairer(registration.RepairerOptions{
		Client: client.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Build:  g.wantedConfiguration, Report: g.repaired, Announce: g.warn, Changed: g.changes.Notify,
		Registry: g.options.Registry, Log: g.options.Log,
	})
	return nil
}

func (g *Guard) wantedConfiguration(ctx context.Context, live *admissionregistrationv1.ValidatingWebhookConfiguration) (
	*admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	owner, err := g.owner(ctx)
	if err != nil {
		return nil, err
	}
	bundle, err := g.certificates.bundle(ctx)
	if err != nil {
		return nil, err
	}
	return registration.Build(g.options.Set, registration.Options{
		Endpoint: g.options.Endpoint, CABundle: g.trusted(bundle, live), Owner: owner, FailurePolicy: g.failurePolicy(live),
		SideDoors:      g.sideDoorPolicy(live),
		ProbeNamespace: g.options.Namespace, ReachabilityProblem: g.reach.currentProblem(),
		CertificateProblem: g.certificates.state().Problem, RecordsProblem: g.recorder.Problem(),
		Annotations: g.publisher.Annotations(),
	}), nil
}

// sideDoorPolicy returns "" if the guard does not judge side doors.
func (g *Guard) sideDoorPolicy(live *admissionregistrationv1.ValidatingWebhookConfiguration) admissionregistrationv1.FailurePolicyType {
	switch g.options.SideDoors {
	case policy.Off:
		return ""
	case policy.Observe:
		return admissionregistrationv1.Ignore
	default:
		return g.failurePolicy(live)
	}
}

// owner returns the reference to the ClusterRole that owns the webhook configuration; nil where none is named. It reads the
// ClusterRole each time: once it is gone, the release is being uninstalled, and the garbage collector deletes the webhook
// configuration too.
//
// A ClusterRole that is being deleted still counts. A finalizer can hold it for ever, and then nothing is uninstalled. If it does
// go, the garbage collector deletes the webhook configuration with this reference, even if that was written a moment too late.
func (g *Guard) owner(ctx context.Context) (*metav1.OwnerReference, error) {
	name := g.options.OwnerClusterRole
	if name == "" {
		return nil, nil
	}
	role, err := g.client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if role, err = g.spareOwner(ctx); err != nil {
			return nil, err
		}
	} else if err == nil {
		g.ownerGone.Store(nil)
	}
	known := g.lastOwner.Load()
	switch {
	case apierrors.IsForbidden(err) && known != nil: // an administrator took this right away; those for the repair may be left
		return known, nil
	case err != nil:
		return nil, fmt.Errorf("read the owner of the webhook configuration, clusterrole %q: %w", name, err)
	}
	owner := &metav1.OwnerReference{
		APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole", Name: role.Name, UID: role.UID,
	}
	g.lastOwner.Store(owner)
	return owner, nil
}

// ownerPatience is how long the owner may be gone before that is no uninstall: helm deletes the Deployment before the ClusterRoles, and a
// guard that ends looks for no owner.
const ownerPatience = 15 * time.Second

const spareSuffix = "-registration"

// spareOwner returns the ClusterRole that takes over from an owner that was deleted while the guard runs on. Otherwise one deletion, of an
// object that no policy can keep from helm, would end the protection.
func (g *Guard) spareOwner(ctx context.Context) (*rbacv1.ClusterRole, error) {
	now := time.Now()
	g.ownerGone.CompareAndSwap(nil, &now)
	if since := g.ownerGone.Load(); since == nil || now.Sub(*since) < ownerPatience {
		return nil, registration.ErrOwnerGone
	}
	name := g.options.OwnerClusterRole + spareSuffix
	role, err := g.client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, registration.ErrOwnerGone
	case err != nil:
		return nil, fmt.Errorf("read the spare owner of the webhook configuration, clusterrole %q: %w", name, err)
	}
	return role, nil
}

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
	if repair.Problem != "" {
		event.Message += " It does not stay as the guard writes it: " + repair.Problem + "."
	} else {
		event.Message += " The guard repaired it."
	}
	g.ledger.Missed(time.Now())
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

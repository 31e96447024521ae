// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Events tells of denials where people look first: in the Events of the denied object, in its namespace, or in "default" for
// a cluster-scoped one. The recorder behind it makes one series of equal Events.
type Events struct {
	Recorder events.EventRecorder
	Set      *reserved.Set
}

// Announce makes an Event of a record, if it is one of a denial or of tampering. It does not wait for the API server.
func (e Events) Announce(record *v1alpha1.AuditRecord) {
	if record.Spec.Outcome == v1alpha1.Tampered {
		e.announceTampering(record)
		return
	}
	object := e.objectOf(record.Spec.Object)
	if object == nil || record.Spec.Outcome != v1alpha1.Denied && record.Spec.Outcome != v1alpha1.WouldDeny {
		return
	}
	e.Recorder.Eventf(object, nil, corev1.EventTypeWarning, record.Spec.Reason, string(record.Spec.Outcome),
		"%s %s by %q: %s (apigw-guardian audit show %s)",
		record.Spec.Outcome, record.Spec.Operation, record.Spec.User.Name, record.Spec.Message, record.Name)
}

func (e Events) announceTampering(record *v1alpha1.AuditRecord) {
	if object := tamperedObject(record.Spec.Object); object != nil {
		e.Recorder.Eventf(object, nil, corev1.EventTypeWarning, record.Spec.Reason, string(record.Spec.Outcome),
			"%s (apigw-guardian audit show %s)", record.Spec.Message, record.Name)
	}
}

// RegistrationObject is the webhook configuration, as a record of tampering names it.
func RegistrationObject() v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{
		Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations", Name: guardian.WebhookConfiguration,
	}
}

// LeaseObject is the leader-election lease, as a record of tampering names it.
func LeaseObject(namespace string) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{
		Group: "coordination.k8s.io", Resource: "leases", Namespace: namespace, Name: guardian.WebhookConfiguration,
	}
}

// tamperedObject returns the object of a record of tampering; nil where the record names no such object.
func tamperedObject(object v1alpha1.ObjectReference) *corev1.ObjectReference {
	switch object {
	case RegistrationObject():
		return &corev1.ObjectReference{
			APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: object.Name,
		}
	case LeaseObject(object.Namespace):
		return &corev1.ObjectReference{
			APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: object.Namespace, Name: object.Name,
		}
	}
	return nil
}

// objectOf finds the kind of a written object in the reserved set; nil where the record names no object of it.
func (e Events) objectOf(object v1alpha1.ObjectReference) *corev1.ObjectReference {
	for _, resource := range e.Set.Resources() {
		isSameScope := (resource.Namespace != "") == (object.Namespace != "")
		if isSameScope && resource.GVR.GroupResource() == object.GroupResource() && object.Name != "" {
			return &corev1.ObjectReference{
				APIVersion: resource.GVR.GroupVersion().String(), Kind: resource.Kind, Namespace: object.Namespace, Name: object.Name,
			}
		}
	}
	return nil
}

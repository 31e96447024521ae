// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Events creates Kubernetes Events for records. Its recorder makes one series of equal Events.
type Events struct {
	Recorder events.EventRecorder
	Set      *reserved.Set
}

// Announce creates an Event for a denial, for tampering, for drift or for a gap. The Event is in the namespace of the record's object, or
// in "default" for a cluster-scoped object. It does not wait for the API server.
func (e Events) Announce(record *v1alpha1.AuditRecord) {
	spec := &record.Spec
	var object *corev1.ObjectReference
	note := spec.Message
	switch spec.Outcome {
	case v1alpha1.Tampered, v1alpha1.Gap:
		object = tamperedObject(spec.Object)
	case v1alpha1.Drift:
		object = e.objectOf(spec.Object)
	case v1alpha1.Denied, v1alpha1.WouldDeny:
		object = e.objectOf(spec.Object)
		note = fmt.Sprintf("%s %s by %q: %s", spec.Outcome, spec.Operation, spec.User.Name, spec.Message)
	}
	if object != nil {
		e.Recorder.Eventf(object, nil, corev1.EventTypeWarning, spec.Reason, string(spec.Outcome),
			"%s (apigw-guardian audit show %s)", note, record.Name)
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

// tamperedObject returns nil if a record of tampering has another object.
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

// objectOf finds the kind of a written object in the reserved set. It returns nil if the set does not have it.
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

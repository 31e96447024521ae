// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

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
	object := e.objectOf(record.Spec.Resource)
	if object == nil || record.Spec.Outcome != v1alpha1.Denied && record.Spec.Outcome != v1alpha1.WouldDeny {
		return
	}
	e.Recorder.Eventf(object, nil, corev1.EventTypeWarning, record.Spec.Reason, string(record.Spec.Outcome),
		"%s %s by %q: %s (apigw-guardian audit show %s)",
		record.Spec.Outcome, record.Spec.Operation, record.Spec.User.Name, record.Spec.Message, record.Name)
}

func (e Events) announceTampering(record *v1alpha1.AuditRecord) {
	if object := tamperedObject(record.Spec.Resource); object != nil {
		e.Recorder.Eventf(object, nil, corev1.EventTypeWarning, record.Spec.Reason, string(record.Spec.Outcome),
			"%s (apigw-guardian audit show %s)", record.Spec.Message, record.Name)
	}
}

// What the guard itself rests on, as a record of tampering names it.
const (
	RegistrationResource = "validatingwebhookconfigurations.admissionregistration.k8s.io"
	LeaseResource        = "leases.coordination.k8s.io"
)

// tamperedObject returns the object of a record of tampering; nil where the record names no such object.
func tamperedObject(path string) *corev1.ObjectReference {
	parts := strings.Split(path, "/")
	switch {
	case parts[0] == RegistrationResource && len(parts) == 2:
		return &corev1.ObjectReference{
			APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration", Name: parts[1],
		}
	case parts[0] == LeaseResource && len(parts) == 3:
		return &corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: parts[1], Name: parts[2]}
	}
	return nil
}

// objectOf finds the kind of a written object in the reserved set; nil where the record names no object of it.
func (e Events) objectOf(path string) *corev1.ObjectReference {
	parts := strings.Split(path, "/")
	for _, entry := range e.Set.Resources() {
		namespaced := entry.Namespace != ""
		if entry.GVR.GroupResource().String() != parts[0] || namespaced != (len(parts) == 3) || len(parts) < 2 {
			continue
		}
		reference := &corev1.ObjectReference{
			APIVersion: entry.GVR.GroupVersion().String(), Kind: entry.Kind, Name: parts[len(parts)-1],
		}
		if namespaced {
			reference.Namespace = parts[1]
		}
		return reference
	}
	return nil
}

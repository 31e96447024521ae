// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Events creates Kubernetes Events for records, one for each record. Make them by NewEvents.
type Events struct {
	recorder events.EventRecorder
	set      *reserved.Set
	limit    *rate.Limiter
	// omitted is the number of records without an Event since the last one.
	omitted atomic.Int64
}

const (
	// eventBurst bounds the Events of a flood: two replicas create fewer than 50. Then one follows in eventInterval.
	eventBurst    = 20
	eventInterval = 30 * time.Second
	// maxNote is NoteLengthLimit in k8s.io/kubernetes/pkg/apis/core/validation, in bytes.
	maxNote = 1024
)

// NewEvents returns the Events of one replica, for resources of the set.
func NewEvents(recorder events.EventRecorder, set *reserved.Set) *Events {
	return &Events{recorder: recorder, set: set, limit: rate.NewLimiter(rate.Every(eventInterval), eventBurst)}
}

// Announce creates an Event for a stored record of a denial, of tampering, of drift or of a gap. The Event is in the namespace of the
// record's object, or in "default" for a cluster-scoped object. It does not wait for the API server. In a flood, most records have no
// Event.
func (e *Events) Announce(record *v1alpha1.AuditRecord) {
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
		note = fmt.Sprintf("%s %s by %q: %s", spec.Outcome, spec.Operation, audit.UserName(&spec.User), spec.Message)
	}
	if object == nil {
		return
	}
	if !e.limit.Allow() {
		e.omitted.Add(1)
		return
	}
	object.UID = types.UID(record.Annotations[guardian.ObjectUIDAnnotation]) // kubectl describe selects by it
	end := fmt.Sprintf(" (apigw-guardian audit show %s)", record.Name)
	if omitted := e.omitted.Swap(0); omitted > 0 {
		end += fmt.Sprintf(" %d records before have no Event: apigw-guardian audit list", omitted)
	}
	// The recorder counts Events of one object and reason as one, unless their related objects differ.
	related := &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion().String(), Kind: "AuditRecord", Name: record.Name, UID: record.UID,
	}
	e.recorder.Eventf(object, related, corev1.EventTypeWarning, spec.Reason, string(spec.Outcome), "%s%s",
		text.Printable(note, maxNote-len(end)), end)
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
func (e *Events) objectOf(object v1alpha1.ObjectReference) *corev1.ObjectReference {
	for _, resource := range e.set.Resources() {
		isSameScope := (resource.Namespace != "") == (object.Namespace != "")
		if isSameScope && resource.GVR.GroupResource() == object.GroupResource() && object.Name != "" {
			return &corev1.ObjectReference{
				APIVersion: resource.GVR.GroupVersion().String(), Kind: resource.Kind, Namespace: object.Namespace, Name: object.Name,
			}
		}
	}
	return nil
}

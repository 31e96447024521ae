// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// MaxCount bounds the writes of a record that is read: sums of all records then fit into an int64, and into a number of JavaScript.
const MaxCount = 1 << 39

// Clean makes all texts of a record printable, bounds its counts, and changes nothing that the guard wrote. It removes the managed fields.
func Clean(record *v1alpha1.AuditRecord) {
	cleanMetadata(&record.ObjectMeta)
	spec := &record.Spec
	cleanEach(maxName, (*string)(&spec.Outcome), (*string)(&spec.Source), (*string)(&spec.Caller), &spec.Reason, &spec.User.Name,
		&spec.User.UID, &spec.Replica, &spec.Unlock)
	cleanEach(maxOperation, (*string)(&spec.Operation))
	cleanEach(maxName, &spec.Object.Group, &spec.Object.Name)
	cleanEach(maxLabel, &spec.Object.Resource, &spec.Object.Namespace)
	cleanEach(maxResource, &spec.Resource)
	cleanEach(maxMessage, &spec.Message)
	cleanEach(maxJustification, &spec.Justification)
	cleanEach(maxUID, &spec.LastRequestUID)
	cleanAll(spec.Changed, maxPath)
	cleanAll(spec.User.Groups, maxName)
	spec.User.Extra = boundedExtra(spec.User.Extra)
	spec.Count = min(spec.Count, MaxCount)
	for i := range spec.Counts {
		cleanEach(maxName, &spec.Counts[i].Replica)
		spec.Counts[i].Count = min(spec.Counts[i].Count, MaxCount)
	}
	for i := range record.Status.Acknowledgements {
		ack := &record.Status.Acknowledgements[i]
		cleanEach(maxName, &ack.By)
		cleanEach(maxMessage, &ack.Note)
	}
}

// CleanUnlock makes the texts of an Unlock printable: its requester chose them, and an approver reads them. It removes the managed
// fields.
func CleanUnlock(unlock *v1alpha1.Unlock) {
	cleanMetadata(&unlock.ObjectMeta)
	spec := &unlock.Spec
	cleanEach(maxName, &spec.Reservation, &spec.RequestedBy, &unlock.Status.ApprovedBy, (*string)(&spec.OnEnd))
	cleanEach(maxJustification, &spec.Reason)
	cleanAll(spec.Users, maxName)
	cleanAll(spec.Resources, maxResource)
}

func cleanMetadata(object *metav1.ObjectMeta) {
	object.ManagedFields = nil
	for _, texts := range []map[string]string{object.Labels, object.Annotations} {
		for key, value := range texts {
			texts[key] = text.Printable(value, maxMessage)
		}
	}
	cleanAll(object.Finalizers, maxName)
	for i := range object.OwnerReferences {
		owner := &object.OwnerReferences[i]
		cleanEach(maxName, &owner.APIVersion, &owner.Kind, &owner.Name, (*string)(&owner.UID))
	}
}

func cleanEach(limit int, values ...*string) {
	for _, value := range values {
		*value = text.Printable(*value, limit)
	}
}

func cleanAll(values []string, limit int) {
	for i := range values {
		cleanEach(limit, &values[i])
	}
}

// MaxItems is the max number of texts in a list of a record, such as its changed paths.
const MaxItems = 32

// Bounds of the texts of a record, in bytes, below those of the custom resource's schema, which count characters.
const (
	maxOperation = 16
	maxLabel     = 64
	maxResource  = 2*(maxName+1+maxLabel) + 1
	maxPath      = 200
	maxMessage   = 2048
	maxName      = 256
	maxUID       = 64

	maxJustification = 2000
)

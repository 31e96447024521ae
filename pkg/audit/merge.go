// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Counted returns what a replica adds to the event's record when the event is the count-th that it counts there: something to
// Merge.
func (e *Event) Counted(replica string, count int64) *v1alpha1.AuditRecord {
	at := metav1.NewMicroTime(e.Time.Truncate(time.Microsecond))
	return &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{
		FirstTime:      at,
		LastTime:       at,
		LastRequestUID: text.Printable(e.RequestUID, maxUID),
		Replica:        replica,
		Count:          count,
		Counts:         []v1alpha1.ReplicaCount{{Replica: replica, Count: count}},
	}}
}

// Merge adds to a record what another one of the same name knows. Each replica's count is the larger of both, so that
// merging twice, late, or in another order comes to the same: a write whose outcome nobody knows can be repeated. It
// reports whether the record has changed.
func Merge(into, from *v1alpha1.AuditRecord) bool {
	changed := false
	for _, theirs := range from.Spec.Counts {
		changed = mergeCount(&into.Spec, theirs) || changed
	}
	if from.Spec.FirstTime.Before(&into.Spec.FirstTime) {
		into.Spec.FirstTime, changed = from.Spec.FirstTime, true
	}
	if into.Spec.LastTime.Before(&from.Spec.LastTime) {
		into.Spec.LastTime, changed = from.Spec.LastTime, true
		into.Spec.LastRequestUID, into.Spec.Replica = from.Spec.LastRequestUID, from.Spec.Replica
	}
	return changed
}

// mergeCount keeps the entries in order of their replicas, and the sum right.
func mergeCount(spec *v1alpha1.AuditRecordSpec, theirs v1alpha1.ReplicaCount) bool {
	at, found := slices.BinarySearchFunc(spec.Counts, theirs.Replica, func(c v1alpha1.ReplicaCount, replica string) int {
		return strings.Compare(c.Replica, replica)
	})
	switch {
	case !found:
		spec.Counts = slices.Insert(spec.Counts, at, theirs)
		spec.Count += theirs.Count
		return true
	case spec.Counts[at].Count < theirs.Count:
		spec.Count += theirs.Count - spec.Counts[at].Count
		spec.Counts[at].Count = theirs.Count
		return true
	}
	return false
}

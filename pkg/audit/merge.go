// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Counted returns what the count-th event of a replica adds to the event's record: something to Merge.
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
// merging twice, late, or in another order gives the same, and a write can be repeated. It reports whether the record has changed.
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

// mergeCount keeps the counts sorted by replica, and updates their sum.
func mergeCount(spec *v1alpha1.AuditRecordSpec, theirs v1alpha1.ReplicaCount) bool {
	at, found := slices.BinarySearchFunc(spec.Counts, theirs.Replica, func(c v1alpha1.ReplicaCount, replica string) int {
		return strings.Compare(c.Replica, replica)
	})
	switch {
	case !found:
		spec.Counts = slices.Insert(spec.Counts, at, theirs)
		spec.Count = min(spec.Count, MaxCount) + theirs.Count // a sum above the max would be negative
		return true
	case spec.Counts[at].Count < theirs.Count:
		spec.Count = min(spec.Count, MaxCount) + theirs.Count - spec.Counts[at].Count
		spec.Counts[at].Count = theirs.Count
		return true
	}
	return false
}

// ErrAltered says that a stored record is not what the guard has stored: another client wrote, deleted or prepared it. What
// the guard has counted must go into a second record, under a name that the other client cannot know.
var ErrAltered = errors.New("another client has altered the audit record")

// Agree reports whether two records are of equal writes, so that one may count into the other. Messages may differ.
func Agree(a, b *v1alpha1.AuditRecord) bool {
	return equality.Semantic.DeepEqual(identity(a), identity(b))
}

// identity is the part of a record that is the same for all its writes.
func identity(record *v1alpha1.AuditRecord) v1alpha1.AuditRecordSpec {
	spec := &record.Spec
	user := spec.User
	user.Groups = slices.Sorted(slices.Values(user.Groups)) // a login may have them in another order
	return v1alpha1.AuditRecordSpec{
		Outcome: spec.Outcome, Operation: spec.Operation, Object: spec.Object, Resource: spec.Resource, Changed: spec.Changed,
		Reason: spec.Reason, User: user, Source: cmp.Or(spec.Source, v1alpha1.SourceGuard), Caller: spec.Caller,
	}
}

// Sound reports whether the guard may have stored a record: its counts are sorted, above zero, and add up to its count, and it
// has no owner, no finalizer and no deletion time.
func Sound(record *v1alpha1.AuditRecord) bool {
	total, last := int64(0), ""
	for i, count := range record.Spec.Counts {
		if count.Count < 1 || i > 0 && count.Replica <= last {
			return false
		}
		total, last = total+count.Count, count.Replica
		if total < 0 { // an overflow
			return false
		}
	}
	return total > 0 && total == record.Spec.Count && !record.Spec.LastTime.Before(&record.Spec.FirstTime) &&
		record.DeletionTimestamp == nil && len(record.Finalizers) == 0 && len(record.OwnerReferences) == 0
}

// Holds reports whether a record has everything of its earlier state: guards only raise counts, and widen times.
func Holds(record, earlier *v1alpha1.AuditRecord) bool {
	if record.UID != earlier.UID || earlier.Spec.FirstTime.Before(&record.Spec.FirstTime) ||
		record.Spec.LastTime.Before(&earlier.Spec.LastTime) {
		return false
	}
	return !slices.ContainsFunc(earlier.Spec.Counts, func(count v1alpha1.ReplicaCount) bool {
		return CountOf(record, count.Replica) < count.Count
	})
}

// InWindow reports whether the times of a record are in the window of its name; true for another source, or a name without one.
func InWindow(record *v1alpha1.AuditRecord) bool {
	start, named := WindowOf(record.Name)
	if !named || cmp.Or(record.Spec.Source, v1alpha1.SourceGuard) != v1alpha1.SourceGuard {
		return true
	}
	return !record.Spec.FirstTime.Time.Before(start) && record.Spec.LastTime.Time.Before(start.Add(Window))
}

// WindowOf returns the start of the window in a record's name, and false if the name has none.
func WindowOf(name string) (time.Time, bool) {
	word, _, _ := strings.Cut(name, "-")
	start, err := time.Parse(nameTime, word)
	return start, err == nil
}

// secondMark ends the first name in the name of a second record. No first name has it.
const secondMark = "."

// SecondName returns a random name for a second record, which no client can guess.
func SecondName(first string) string {
	return FirstName(first) + secondMark + strings.ToLower(rand.Text()[:digestBytes])
}

// FirstName returns the first name of a second name, and any other name unchanged.
func FirstName(name string) string {
	first, _, _ := strings.Cut(name, secondMark)
	return first
}

// CountOf returns a replica's count in the record.
func CountOf(record *v1alpha1.AuditRecord, replica string) int64 {
	for _, count := range record.Spec.Counts {
		if count.Replica == replica {
			return count.Count
		}
	}
	return 0
}

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

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// ErrAltered says that a stored record is not what the guard has stored: another client wrote, deleted or prepared it. What
// the guard has counted must go into a second record, under a name that the other client cannot know.
var ErrAltered = errors.New("another client has altered the audit record")

// Agree reports whether two records stand for equal writes, so that one may count for the other. Messages may differ: two
// versions of the guard say the same in other words.
func Agree(a, b *v1alpha1.AuditRecord) bool {
	return equality.Semantic.DeepEqual(identity(a), identity(b))
}

// identity is the part of a record that all its writes share.
func identity(record *v1alpha1.AuditRecord) v1alpha1.AuditRecordSpec {
	spec := &record.Spec
	user := spec.User
	user.Groups = slices.Sorted(slices.Values(user.Groups)) // a login may have them in another order
	return v1alpha1.AuditRecordSpec{
		Outcome: spec.Outcome, Operation: spec.Operation, Object: spec.Object, Resource: spec.Resource, Changed: spec.Changed,
		Reason: spec.Reason, User: user, Source: cmp.Or(spec.Source, v1alpha1.SourceGuard), Caller: spec.Caller,
	}
}

// Sound reports whether a record is one that the guard may have stored: its counts are in order, above zero, and come to its
// count, and nothing lets it be deleted or keeps it from being deleted.
func Sound(record *v1alpha1.AuditRecord) bool {
	total, last := int64(0), ""
	for i, count := range record.Spec.Counts {
		if count.Count < 1 || i > 0 && count.Replica <= last {
			return false
		}
		total, last = total+count.Count, count.Replica
		if total < 0 { // past the largest number
			return false
		}
	}
	return total > 0 && total == record.Spec.Count && !record.Spec.LastTime.Before(&record.Spec.FirstTime) &&
		record.DeletionTimestamp == nil && len(record.Finalizers) == 0 && len(record.OwnerReferences) == 0
}

// Holds reports whether a record has all that an earlier state of it had: guards only raise counts, and widen times.
func Holds(record, earlier *v1alpha1.AuditRecord) bool {
	if record.UID != earlier.UID || earlier.Spec.FirstTime.Before(&record.Spec.FirstTime) ||
		record.Spec.LastTime.Before(&earlier.Spec.LastTime) {
		return false
	}
	return !slices.ContainsFunc(earlier.Spec.Counts, func(count v1alpha1.ReplicaCount) bool {
		return CountOf(record, count.Replica) < count.Count
	})
}

// InWindow reports whether the times of a guard's record lie in the window that its name states. A record of another source
// or under another kind of name is in no window, and passes.
func InWindow(record *v1alpha1.AuditRecord) bool {
	start, named := WindowOf(record.Name)
	if !named || cmp.Or(record.Spec.Source, v1alpha1.SourceGuard) != v1alpha1.SourceGuard {
		return true
	}
	return !record.Spec.FirstTime.Time.Before(start) && record.Spec.LastTime.Time.Before(start.Add(Window))
}

// WindowOf returns the start of the window that a record's name states, and false for a name that states none.
func WindowOf(name string) (time.Time, bool) {
	word, _, _ := strings.Cut(name, "-")
	start, err := time.Parse(nameTime, word)
	return start, err == nil
}

// secondMark parts the name of a second record from the name of the first. No first name has it.
const secondMark = "."

// SecondName returns a new name for a second record of what the record of that name should hold. Nobody can guess it.
func SecondName(first string) string {
	return FirstName(first) + secondMark + strings.ToLower(rand.Text()[:digestBytes])
}

// FirstName returns the name that the second name was made of, and any other name as it is.
func FirstName(name string) string {
	first, _, _ := strings.Cut(name, secondMark)
	return first
}

// CountOf returns what a replica has counted into the record.
func CountOf(record *v1alpha1.AuditRecord, replica string) int64 {
	for _, count := range record.Spec.Counts {
		if count.Replica == replica {
			return count.Count
		}
	}
	return 0
}

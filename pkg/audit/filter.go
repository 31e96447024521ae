// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Filter selects records. Its zero value selects all.
type Filter struct {
	// Since and Until bound the times of the writes: a record matches if a write may be between them. The zero time is no bound.
	Since, Until time.Time
	// User and Resource are parts of a name, or for User of its Extra, in any case. In double quotes they are the exact name: ""
	// matches an unknown user.
	User, Resource string
	// Object is the type of an object, and its namespace and a part of its name unless they are empty. An empty type is any.
	Object v1alpha1.ObjectReference
	// Operation, Outcome and Reason are whole words, in any case.
	Operation, Outcome, Reason string
	// Unlock is the exact name of the Unlock that allowed the writes.
	Unlock string
	// Unacknowledged selects the records that have writes which no user has acknowledged.
	Unacknowledged bool
	// Text is a part of any text of the record, in any case.
	Text string
}

// Match reports whether the record matches every part of the filter.
func (f Filter) Match(record *v1alpha1.AuditRecord) bool {
	spec := &record.Spec
	return (f.Since.IsZero() || !spec.LastTime.Time.Before(f.Since)) &&
		(f.Until.IsZero() || spec.FirstTime.Time.Before(f.Until)) &&
		isUser(&spec.User, f.User) &&
		isNamed(spec.Resource, f.Resource) &&
		f.isObject(spec.Object) &&
		isWord(string(spec.Operation), f.Operation) &&
		isWord(string(spec.Outcome), f.Outcome) &&
		isWord(spec.Reason, f.Reason) &&
		(f.Unlock == "" || spec.Unlock == f.Unlock) &&
		(!f.Unacknowledged || record.Acknowledged() == nil) &&
		(f.Text == "" || says(record, f.Text))
}

func (f Filter) isObject(object v1alpha1.ObjectReference) bool {
	return f.Object.Resource == "" || f.Object.GroupResource() == object.GroupResource() && contains(object.Name, f.Object.Name) &&
		(f.Object.Namespace == "" || f.Object.Namespace == object.Namespace)
}

// isUser also finds a person behind a shared name, by a part of Extra.
func isUser(user *v1alpha1.User, wanted string) bool {
	return isNamed(user.Name, wanted) || isNamed(UserName(user), wanted)
}

func isNamed(name, wanted string) bool {
	if len(wanted) >= 2 && wanted[0] == '"' && wanted[len(wanted)-1] == '"' {
		return name == wanted[1:len(wanted)-1]
	}
	return contains(name, wanted)
}

func says(record *v1alpha1.AuditRecord, part string) bool {
	spec := &record.Spec
	texts := slices.Concat([]string{
		record.Name, spec.Message, spec.User.Name, spec.User.UID, spec.Resource, spec.Reason, string(spec.Operation), string(spec.Outcome),
		spec.LastRequestUID, spec.Unlock, spec.Justification,
	}, spec.User.Groups, spec.Changed, ExtraLines(&spec.User), Acknowledgements(record))
	return slices.ContainsFunc(texts, func(text string) bool { return contains(text, part) })
}

// Acknowledgements returns a line for each acknowledgement of the record, such as "alice at 2026-11-25T08:20:00Z (3 writes): a test".
func Acknowledgements(record *v1alpha1.AuditRecord) []string {
	var lines []string
	for _, ack := range record.Status.Acknowledgements {
		lines = append(lines, fmt.Sprintf("%s at %s (%s): %s", ack.By, ack.At.UTC().Format(time.RFC3339), writes(ack.Count), ack.Note))
	}
	return lines
}

func writes(count int64) string {
	if count == 1 {
		return "1 write"
	}
	return fmt.Sprintf("%d writes", count)
}

func contains(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func isWord(text, word string) bool { return word == "" || strings.EqualFold(text, word) }

// Newest sorts records by their last write, the newest first, then by name. It returns limit of them at most, or all if limit is 0.
func Newest(records []v1alpha1.AuditRecord, limit int) []v1alpha1.AuditRecord {
	slices.SortFunc(records, func(a, b v1alpha1.AuditRecord) int {
		return cmp.Or(b.Spec.LastTime.Compare(a.Spec.LastTime.Time), strings.Compare(a.Name, b.Name))
	})
	if limit > 0 {
		return records[:min(len(records), limit)]
	}
	return records
}

// Oldest sorts records by their last write, the oldest first, then by their first one and by name. Names alone do not suffice: they
// begin with the time of a window, and go on with the operation.
func Oldest(records []v1alpha1.AuditRecord) []v1alpha1.AuditRecord {
	slices.SortFunc(records, func(a, b v1alpha1.AuditRecord) int {
		return cmp.Or(a.Spec.LastTime.Compare(b.Spec.LastTime.Time), a.Spec.FirstTime.Compare(b.Spec.FirstTime.Time),
			strings.Compare(a.Name, b.Name))
	})
	return records
}

// Named returns the names that contain a part. It ignores case.
func Named(records []v1alpha1.AuditRecord, part string) []string {
	var names []string
	for i := range records {
		if contains(records[i].Name, part) {
			names = append(names, records[i].Name)
		}
	}
	return names
}

// minPrefix is what similar names share: the year and the month of their records.
const minPrefix = len("200601")

// Near returns up to three names that share the longest beginning with the given one. It returns nil if none is similar.
func Near(records []v1alpha1.AuditRecord, name string) []string {
	name = strings.ToLower(name)
	var names []string
	for i := range records {
		if shared(records[i].Name, name) >= minPrefix {
			names = append(names, records[i].Name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(shared(b, name), shared(a, name)) })
	return names[:min(len(names), 3)]
}

// shared is the length of the common prefix.
func shared(a, b string) int {
	length := min(len(a), len(b))
	for i := range length {
		if a[i] != b[i] {
			return i
		}
	}
	return length
}

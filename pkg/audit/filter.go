// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Filter picks records. Its zero value picks all.
type Filter struct {
	// Since and Until bound the time at which a record's writes happened: a record fits if one of them may lie in between. The
	// zero time is no bound.
	Since, Until time.Time
	// User and Resource are parts of the name that is looked for; upper and lower case are the same.
	User, Resource string
	// Operation, Outcome and Reason are whole words; upper and lower case are the same.
	Operation, Outcome, Reason string
}

// Operations returns the operations that a record may bear, beside none for a request that could not be read.
func Operations() []string { return []string{"CREATE", "UPDATE", "DELETE"} }

// Match reports whether the record fits every part of the filter.
func (f Filter) Match(record *v1alpha1.AuditRecord) bool {
	spec := &record.Spec
	return (f.Since.IsZero() || !spec.LastTime.Time.Before(f.Since)) &&
		(f.Until.IsZero() || spec.FirstTime.Time.Before(f.Until)) &&
		contains(spec.User.Name, f.User) &&
		contains(spec.Resource, f.Resource) &&
		isWord(spec.Operation, f.Operation) &&
		isWord(string(spec.Outcome), f.Outcome) &&
		isWord(spec.Reason, f.Reason)
}

func contains(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func isWord(text, word string) bool { return word == "" || strings.EqualFold(text, word) }

// SortNewestFirst orders records by the last write that they count. Equal times are in order of names, so that the order
// does not change from one look to the next.
func SortNewestFirst(records []v1alpha1.AuditRecord) {
	slices.SortFunc(records, func(a, b v1alpha1.AuditRecord) int {
		if order := b.Spec.LastTime.Time.Compare(a.Spec.LastTime.Time); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Filter picks records. Its zero value picks all.
type Filter struct {
	// Since and Until bound the time at which a record's writes happened: a record fits if one of them may lie in between. The
	// zero time is no bound.
	Since, Until time.Time
	// User and Resource are parts of the name that is looked for; upper and lower case are the same. In double quotes, they are
	// the name itself: "admin" with its quotes finds neither Admin nor system:admin, and "" finds who is not known.
	User, Resource string
	// Operation, Outcome and Reason are whole words; upper and lower case are the same.
	Operation, Outcome, Reason string
	// Text is a part of any text of the record: of its name, message, user, groups, resource, changed paths, reason, uids.
	// Upper and lower case are the same.
	Text string
}

// Operations returns the operations that a record may bear, beside none for a request that could not be read.
func Operations() []admissionv1.Operation {
	return []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete}
}

// Match reports whether the record fits every part of the filter.
func (f Filter) Match(record *v1alpha1.AuditRecord) bool {
	spec := &record.Spec
	return (f.Since.IsZero() || !spec.LastTime.Time.Before(f.Since)) &&
		(f.Until.IsZero() || spec.FirstTime.Time.Before(f.Until)) &&
		isNamed(spec.User.Name, f.User) &&
		isNamed(spec.Resource, f.Resource) &&
		isWord(string(spec.Operation), f.Operation) &&
		isWord(string(spec.Outcome), f.Outcome) &&
		isWord(spec.Reason, f.Reason) &&
		(f.Text == "" || says(record, f.Text))
}

func isNamed(name, wanted string) bool {
	if len(wanted) >= 2 && wanted[0] == '"' && wanted[len(wanted)-1] == '"' {
		return name == wanted[1:len(wanted)-1]
	}
	return contains(name, wanted)
}

// says reports whether a text of the record contains the part.
func says(record *v1alpha1.AuditRecord, part string) bool {
	spec := &record.Spec
	single := []string{
		record.Name, spec.Message, spec.User.Name, spec.User.UID, spec.Resource, spec.Reason, string(spec.Operation), string(spec.Outcome),
		spec.LastRequestUID,
	}
	for _, texts := range [][]string{single, spec.User.Groups, spec.Changed} {
		if slices.ContainsFunc(texts, func(text string) bool { return contains(text, part) }) {
			return true
		}
	}
	return false
}

func contains(text, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func isWord(text, word string) bool { return word == "" || strings.EqualFold(text, word) }

// SortNewestFirst orders records by the last write that they count. Equal times are in order of names, so that the order
// does not change from one look to the next.
func SortNewestFirst(records []v1alpha1.AuditRecord) {
	slices.SortFunc(records, func(a, b v1alpha1.AuditRecord) int {
		if order := b.Spec.LastTime.Compare(a.Spec.LastTime.Time); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
}

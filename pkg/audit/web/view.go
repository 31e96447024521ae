// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// view is an answer to the page: the records that match the filter.
type view struct {
	signal

	Cluster string  `json:"cluster"`
	Choices choices `json:"choices"`
	// Stored is the number of all records.
	Stored int `json:"stored"`
	// Records and Writes are the numbers of those that match the filter.
	Records int   `json:"records"`
	Writes  int64 `json:"writes"`
	// Outcomes counts writes without the filter's outcome, so that the page can offer the others.
	Outcomes  []audit.Tally `json:"outcomes"`
	Users     ranking       `json:"users"`
	Resources ranking       `json:"resources"`
	Timeline  timeline      `json:"timeline"`
	// Page counts from 1. It is the last page if the query asks for a later one.
	Page  int   `json:"page"`
	Pages int   `json:"pages"`
	Size  int   `json:"size"`
	Rows  []row `json:"rows"`
}

// ranking is the names with the most writes.
type ranking struct {
	// Of is the number of all names.
	Of  int           `json:"of"`
	Top []audit.Tally `json:"top"`
}

// ranked is how many names a ranking has.
const ranked = 8

// row is one row of the table.
type row struct {
	Name      string                `json:"name"`
	Outcome   v1alpha1.Outcome      `json:"outcome"`
	Operation admissionv1.Operation `json:"operation"`
	// Resource is Object in one string, the value of the filter.
	Resource string                   `json:"resource"`
	Object   v1alpha1.ObjectReference `json:"object"`
	User     string                   `json:"user"`
	Reason   string                   `json:"reason"`
	// Caller lets the page mark an unverified caller.
	Caller   v1alpha1.Caller  `json:"caller,omitempty"`
	Count    int64            `json:"count"`
	LastTime metav1.MicroTime `json:"lastTime"`
}

func newView(s *snapshot, query query, now time.Time) view {
	fit, outcomes := pick(s.records, query.filter)
	summary := audit.Summarize(fit, query.place)
	pages := max(1, (len(fit)+query.size-1)/query.size)
	page := min(query.page, pages)
	return view{
		signal:    s.signal,
		Choices:   s.choices,
		Stored:    len(s.records),
		Records:   len(fit),
		Writes:    summary.Writes,
		Outcomes:  outcomes,
		Users:     rank(summary.ByUser),
		Resources: rank(summary.ByResource),
		Timeline:  newTimeline(fit, spanOf(fit, query, now)),
		Page:      page,
		Pages:     pages,
		Size:      query.size,
		Rows:      rows(fit[(page-1)*query.size : min(page*query.size, len(fit))]),
	}
}

// pick returns the records that match, and the writes by outcome of the records that match without the filter's outcome.
func pick(records []v1alpha1.AuditRecord, filter audit.Filter) ([]v1alpha1.AuditRecord, []audit.Tally) {
	anyOutcome := filter
	anyOutcome.Outcome = ""
	onlyOutcome := audit.Filter{Outcome: filter.Outcome}
	var fit, all []v1alpha1.AuditRecord
	for i := range records {
		if !anyOutcome.Match(&records[i]) {
			continue
		}
		all = append(all, records[i])
		if onlyOutcome.Match(&records[i]) {
			fit = append(fit, records[i])
		}
	}
	return fit, audit.Summarize(all, time.UTC).ByOutcome
}

func rank(tallies []audit.Tally) ranking {
	return ranking{Of: len(tallies), Top: tallies[:min(ranked, len(tallies))]}
}

func rows(records []v1alpha1.AuditRecord) []row {
	rows := make([]row, 0, len(records))
	for i := range records {
		spec := &records[i].Spec
		rows = append(rows, row{
			Name: records[i].Name, Outcome: spec.Outcome, Operation: spec.Operation, Resource: spec.Resource, Object: spec.Object,
			User: spec.User.Name, Reason: spec.Reason, Caller: spec.Caller, Count: spec.Count, LastTime: spec.LastTime,
		})
	}
	return rows
}

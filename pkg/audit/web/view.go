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

// view is one answer to the page: all that it shows of the records that fit its filter.
type view struct {
	signal

	Cluster string  `json:"cluster"`
	Choices choices `json:"choices"`
	// Stored is the number of all records.
	Stored int `json:"stored"`
	// Records and Writes are the numbers of those that fit the filter.
	Records int   `json:"records"`
	Writes  int64 `json:"writes"`
	// Outcomes counts writes as if the filter named no outcome: it is there to choose one.
	Outcomes  []audit.Tally `json:"outcomes"`
	Users     ranking       `json:"users"`
	Resources ranking       `json:"resources"`
	Timeline  timeline      `json:"timeline"`
	// Page counts from 1, and is the last one where a later one was asked for.
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

// row is what the table shows of a record.
type row struct {
	Name      string                `json:"name"`
	Outcome   v1alpha1.Outcome      `json:"outcome"`
	Operation admissionv1.Operation `json:"operation"`
	// Resource is Object in one string, the value of the filter.
	Resource string                   `json:"resource"`
	Object   v1alpha1.ObjectReference `json:"object"`
	User     string                   `json:"user"`
	Reason   string                   `json:"reason"`
	// Caller is as in the record: the page marks a caller that was not verified.
	Caller   v1alpha1.Caller  `json:"caller,omitempty"`
	Count    int64            `json:"count"`
	LastTime metav1.MicroTime `json:"lastTime"`
}

// newView looks at the records of a moment.
func newView(m *moment, query query, now time.Time) view {
	fit, outcomes := pick(m.records, query.filter)
	summary := audit.Summarize(fit, query.place)
	pages := max(1, (len(fit)+query.size-1)/query.size)
	page := min(query.page, pages)
	return view{
		signal:    m.signal,
		Choices:   m.choices,
		Stored:    len(m.records),
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

// pick returns the records that fit, and the writes by outcome of those that would fit if no outcome were asked for.
func pick(records []v1alpha1.AuditRecord, filter audit.Filter) ([]v1alpha1.AuditRecord, []audit.Tally) {
	anyOutcome := filter
	anyOutcome.Outcome = ""
	onlyOutcome := audit.Filter{Outcome: filter.Outcome}
	fit, all := []v1alpha1.AuditRecord{}, []v1alpha1.AuditRecord{}
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
			Name: records[i].Name, Outcome: spec.Outcome, Operation: spec.Operation, Resource: spec.Resource, Object: spec.Object, User: spec.User.Name,
			Reason: spec.Reason, Caller: spec.Caller, Count: spec.Count, LastTime: spec.LastTime,
		})
	}
	return rows
}

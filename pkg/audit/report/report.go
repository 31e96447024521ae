// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package report makes one document of audit records that an administrator can give to an auditor: HTML, Markdown or JSON. Texts of
// records, unlocks and logs must be printable, as audit.Clean makes them.
package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
)

// Input is what a report is about. Made and Place are required.
type Input struct {
	// Cluster is its name; "" if it has none. Version is the product's.
	Cluster, Version string
	// Since and Until bound the time; the zero Since is the first record, the zero Until is Made.
	Since, Until, Made time.Time
	// Filter are the flags that have selected the records; "" for all records of the time.
	Filter string
	// Place is the time zone of the days.
	Place   *time.Location
	Records []v1alpha1.AuditRecord
	Unlocks []v1alpha1.Unlock
	// UnlocksProblem says why the unlocks cannot be read; "" if they can.
	UnlocksProblem string
	// Log is the comparison with the API server's audit log; nil without one. BrokenLines of the log cannot be parsed.
	Log         *apilog.Report
	BrokenLines int
}

// Report is what New found. Its JSON is stable.
type Report struct {
	Cluster string      `json:"cluster,omitempty"`
	Version string      `json:"version"`
	Made    metav1.Time `json:"made"`
	Since   metav1.Time `json:"since"`
	Until   metav1.Time `json:"until"`
	// Filter is "" if the report has all records of the time.
	Filter  string `json:"filter,omitempty"`
	Records int    `json:"records"`
	Totals  Tally  `json:"totals"`
	// ByOutcome, ByReason, ByUser and ByResource have the largest sum first.
	ByOutcome  []Tally `json:"byOutcome"`
	ByReason   []Tally `json:"byReason"`
	ByUser     []Tally `json:"byUser"`
	ByResource []Tally `json:"byResource"`
	// Trend has every day of the time, or every month of more than 62 days.
	Trend      []Tally     `json:"trend"`
	Gaps       []Gap       `json:"gaps"`
	Unlocks    []Unlock    `json:"unlocks"`
	Exemptions []Exemption `json:"exemptions"`
	// UnlocksProblem says why Unlocks has only what the records say.
	UnlocksProblem   string            `json:"unlocksProblem,omitempty"`
	Acknowledgements []Acknowledgement `json:"acknowledgements"`
	// Unacknowledged are the records that no user has acknowledged, the newest first.
	Unacknowledged []Unseen `json:"unacknowledged"`
	// Completeness is nil without the API server's audit log.
	Completeness *Completeness `json:"completeness,omitempty"`

	place *time.Location
}

// Tally counts writes. Other are neither denied nor allowed on purpose, such as a Gap.
type Tally struct {
	Name    string `json:"name,omitempty"`
	Writes  int64  `json:"writes"`
	Denied  int64  `json:"denied"`
	Allowed int64  `json:"allowed"`
	Other   int64  `json:"other"`
}

func (t *Tally) add(spec *v1alpha1.AuditRecordSpec) {
	t.Writes += spec.Count
	switch {
	case spec.Outcome == v1alpha1.Denied:
		t.Denied += spec.Count
	case spec.Outcome.IsAllowed():
		t.Allowed += spec.Count
	default:
		t.Other += spec.Count
	}
}

// Gap is a record that protection was missing or damaged: a Gap, Drift, Tampered or Unguarded.
type Gap struct {
	Record   string           `json:"record"`
	Outcome  v1alpha1.Outcome `json:"outcome"`
	From     metav1.MicroTime `json:"from"`
	To       metav1.MicroTime `json:"to"`
	Resource string           `json:"resource,omitempty"`
	User     string           `json:"user,omitempty"`
	Message  string           `json:"message,omitempty"`
}

// Unlock is one that was open in the time of the report, or that allowed a recorded write. A deleted one has Name, Reason and Writes.
type Unlock struct {
	Name        string               `json:"name"`
	Reason      string               `json:"reason,omitempty"`
	RequestedBy string               `json:"requestedBy,omitempty"`
	ApprovedBy  string               `json:"approvedBy,omitempty"`
	From        *metav1.Time         `json:"from,omitempty"`
	To          *metav1.Time         `json:"to,omitempty"`
	State       v1alpha1.UnlockState `json:"state,omitempty"`
	// Writes are the recorded writes under it.
	Writes int64 `json:"writes"`
}

// Exemption is the use of one by one user.
type Exemption struct {
	Reason   string           `json:"reason"`
	User     string           `json:"user"`
	Writes   int64            `json:"writes"`
	LastTime metav1.MicroTime `json:"lastTime"`
}

// Acknowledgement is one of a record. Current says that it is of all writes of the record.
type Acknowledgement struct {
	v1alpha1.Acknowledgement

	Record  string `json:"record"`
	Current bool   `json:"current"`
}

// Unseen is a record that no user has acknowledged.
type Unseen struct {
	Record   string           `json:"record"`
	Outcome  v1alpha1.Outcome `json:"outcome"`
	Resource string           `json:"resource"`
	User     string           `json:"user"`
	Count    int64            `json:"count"`
	LastTime metav1.MicroTime `json:"lastTime"`
}

// Completeness compares the records with the API server's audit log.
type Completeness struct {
	*apilog.Report

	// MissingDenials and MissingWrites are in the log, and in no record. MissingWrites include denials.
	MissingDenials int64 `json:"missingDenials"`
	MissingWrites  int64 `json:"missingWrites"`
	BrokenLines    int   `json:"brokenLines"`
}

// New makes a report. It sorts the records of the input.
func New(in Input) *Report {
	records := audit.Oldest(in.Records)
	r := &Report{
		Filter: in.Filter, Cluster: in.Cluster, Version: in.Version, Made: metav1.NewTime(in.Made), Since: metav1.NewTime(in.Since),
		Until: metav1.NewTime(in.Until), Records: len(records), UnlocksProblem: in.UnlocksProblem, place: in.Place,
		Gaps: []Gap{}, Acknowledgements: []Acknowledgement{}, Unacknowledged: []Unseen{},
	}
	if in.Until.IsZero() {
		r.Until = r.Made
	}
	if in.Since.IsZero() && len(records) > 0 {
		r.Since = metav1.NewTime(records[0].Spec.FirstTime.Time)
	}
	for i := range records {
		r.add(&records[i])
	}
	slices.Reverse(r.Unacknowledged)
	r.ByOutcome = sorted(records, func(s *v1alpha1.AuditRecordSpec) string { return string(s.Outcome) })
	r.ByReason = sorted(records, func(s *v1alpha1.AuditRecordSpec) string { return s.Reason })
	r.ByUser = sorted(records, func(s *v1alpha1.AuditRecordSpec) string { return audit.UserName(&s.User) })
	r.ByResource = sorted(records, func(s *v1alpha1.AuditRecordSpec) string { return s.Resource })
	r.Trend, r.Exemptions, r.Unlocks = r.trend(records), exemptions(records), r.unlocks(in.Unlocks, records)
	if in.Log != nil {
		r.Completeness = completeness(in.Log, in.BrokenLines)
	}
	return r
}

func (r *Report) add(record *v1alpha1.AuditRecord) {
	spec := &record.Spec
	r.Totals.add(spec)
	for _, ack := range record.Status.Acknowledgements {
		r.Acknowledgements = append(r.Acknowledgements, Acknowledgement{ack, record.Name, ack.Count == spec.Count})
	}
	if record.Acknowledged() == nil {
		r.Unacknowledged = append(r.Unacknowledged, Unseen{
			record.Name, spec.Outcome, spec.Resource, audit.UserName(&spec.User), spec.Count, spec.LastTime,
		})
	}
	switch spec.Outcome {
	case v1alpha1.Gap, v1alpha1.Drift, v1alpha1.Tampered, v1alpha1.Unguarded:
		r.Gaps = append(r.Gaps, Gap{
			record.Name, spec.Outcome, spec.FirstTime, spec.LastTime, spec.Resource, audit.UserName(&spec.User), spec.Message,
		})
	}
}

func sorted(records []v1alpha1.AuditRecord, name func(*v1alpha1.AuditRecordSpec) string) []Tally {
	tallies, at := []Tally{}, map[string]int{}
	for i := range records {
		spec := &records[i].Spec
		key := name(spec)
		if _, found := at[key]; !found {
			at[key] = len(tallies)
			tallies = append(tallies, Tally{Name: key})
		}
		tallies[at[key]].add(spec)
	}
	slices.SortStableFunc(tallies, func(a, b Tally) int { return cmp.Or(cmp.Compare(b.Writes, a.Writes), cmp.Compare(a.Name, b.Name)) })
	return tallies
}

// maxDays is the max number of days in a trend. maxMonths bounds it against a record with a wrong time.
const (
	maxDays   = 62
	maxMonths = 240
)

// trend counts all writes of a record at its last one, and those outside the time at its edge.
func (r *Report) trend(records []v1alpha1.AuditRecord) []Tally {
	trend := []Tally{}
	if r.Since.IsZero() || r.Until.Before(&r.Since) {
		return trend
	}
	since, until := r.Since.In(r.place), r.Until.In(r.place)
	layout, months, days := time.DateOnly, 0, 1
	if until.Sub(since) > maxDays*24*time.Hour {
		layout, months, days = "2006-01", 1, 0
		since = time.Date(since.Year(), since.Month(), 1, 0, 0, 0, 0, r.place)
	}
	for at := since; len(trend) < maxMonths && at.Format(layout) <= until.Format(layout); at = at.AddDate(0, months, days) {
		trend = append(trend, Tally{Name: at.Format(layout)})
	}
	for i := range records {
		spec := &records[i].Spec
		name := spec.LastTime.In(r.place).Format(layout)
		at, _ := slices.BinarySearchFunc(trend, name, func(t Tally, name string) int { return strings.Compare(t.Name, name) })
		trend[min(at, len(trend)-1)].add(spec)
	}
	return trend
}

func exemptions(records []v1alpha1.AuditRecord) []Exemption {
	uses := []Exemption{}
	for i := range records {
		spec := &records[i].Spec
		if spec.Outcome != v1alpha1.Exempted {
			continue
		}
		user := audit.UserName(&spec.User)
		at := slices.IndexFunc(uses, func(e Exemption) bool { return e.Reason == spec.Justification && e.User == user })
		if at < 0 {
			at = len(uses)
			uses = append(uses, Exemption{Reason: spec.Justification, User: user})
		}
		uses[at].Writes += spec.Count
		uses[at].LastTime = spec.LastTime // the records are in order of time
	}
	return uses
}

func (r *Report) unlocks(live []v1alpha1.Unlock, records []v1alpha1.AuditRecord) []Unlock {
	unlocks := []Unlock{}
	for i := range live {
		u := &live[i]
		unlocks = append(unlocks, Unlock{
			Name: u.Name, Reason: u.Spec.Reason, RequestedBy: u.Spec.RequestedBy, ApprovedBy: u.Status.ApprovedBy,
			From: &u.CreationTimestamp, To: &u.Spec.ExpiresAt, State: u.Status.State,
		})
	}
	for i := range records {
		spec := &records[i].Spec
		if spec.Unlock == "" {
			continue
		}
		at := slices.IndexFunc(unlocks, func(u Unlock) bool { return u.Name == spec.Unlock })
		if at < 0 {
			at = len(unlocks)
			unlocks = append(unlocks, Unlock{Name: spec.Unlock, Reason: spec.Justification})
		}
		unlocks[at].Writes += spec.Count
	}
	return slices.DeleteFunc(unlocks, func(u Unlock) bool {
		return u.Writes == 0 && (u.To.Before(&r.Since) || r.Until.Before(u.From))
	})
}

func completeness(log *apilog.Report, broken int) *Completeness {
	c := &Completeness{Report: log, BrokenLines: broken}
	for _, missing := range log.Missing {
		c.MissingWrites += missing.Logged - missing.Recorded
		if missing.Outcome == v1alpha1.Denied {
			c.MissingDenials += missing.Logged - missing.Recorded
		}
	}
	return c
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"sort"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// view is an answer to the page: the records that match the filter.
type view struct {
	signal

	Cluster string `json:"cluster"`
	// Clusters is nil on a page of one cluster.
	Clusters []cluster `json:"clusters,omitempty"`
	Choices  choices   `json:"choices"`
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

// cluster counts the records of one of several clusters that match the filter without its cluster.
type cluster struct {
	clusterState
	Records int   `json:"records"`
	Writes  int64 `json:"writes"`
	Denied  int64 `json:"denied"`
}

// ranking is the names with the most writes.
type ranking struct {
	// Of is the number of all names.
	Of  int           `json:"of"`
	Top []audit.Tally `json:"top"`
}

// ranked is how many names a ranking has.
const ranked = 8

type row struct {
	// ID is the record's in this page.
	ID string `json:"id"`
	// Cluster is the context of the record's cluster; "" on a page of one cluster.
	Cluster   string                `json:"cluster,omitempty"`
	Name      string                `json:"name"`
	Outcome   v1alpha1.Outcome      `json:"outcome"`
	Operation admissionv1.Operation `json:"operation"`
	// Resource is Object in one string, the value of the filter.
	Resource string                   `json:"resource"`
	Object   v1alpha1.ObjectReference `json:"object"`
	User     string                   `json:"user"`
	// Person is the User with its extra, which names the person behind a shared User; "" without extra.
	Person string `json:"person,omitempty"`
	Reason string `json:"reason"`
	// AcknowledgedBy is the last user who has acknowledged all writes of the record; "" if no user has.
	AcknowledgedBy string `json:"acknowledgedBy,omitempty"`
	// Caller lets the page mark an unverified caller.
	Caller   v1alpha1.Caller  `json:"caller,omitempty"`
	Count    int64            `json:"count"`
	LastTime metav1.MicroTime `json:"lastTime"`
}

func newView(s *snapshot, query query, now time.Time) view {
	fit, outcomes, clusters := pick(s, query)
	summary := audit.Summarize(fit, query.place)
	pages := max(1, (len(fit)+query.size-1)/query.size)
	page := min(query.page, pages)
	return view{
		signal:    s.signal,
		Clusters:  clusters,
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

// pick returns the records that match, the writes by outcome of the records that match without the filter's outcome, and the counts
// of each cluster.
func pick(s *snapshot, query query) ([]v1alpha1.AuditRecord, []audit.Tally, []cluster) {
	anyOutcome := query.filter
	anyOutcome.Outcome = ""
	onlyOutcome := audit.Filter{Outcome: query.filter.Outcome}
	clusters, counts := make([]cluster, len(s.signal.Clusters)), map[string]*cluster{}
	for i, state := range s.signal.Clusters {
		clusters[i].clusterState = state
		counts[state.Context] = &clusters[i]
	}
	var fit, all []v1alpha1.AuditRecord
	for i := range s.records {
		record := &s.records[i]
		if !anyOutcome.Match(record) {
			continue
		}
		isFit, isHere := onlyOutcome.Match(record), query.cluster == "" || query.cluster == record.Namespace
		if counted := counts[record.Namespace]; counted != nil && isFit {
			counted.count(&record.Spec)
		}
		if isHere {
			all = append(all, *record)
		}
		if isHere && isFit {
			fit = append(fit, *record)
		}
	}
	return fit, audit.Summarize(all, time.UTC).ByOutcome, clusters
}

func (c *cluster) count(spec *v1alpha1.AuditRecordSpec) {
	c.Records++
	c.Writes += spec.Count
	if spec.Outcome == v1alpha1.Denied {
		c.Denied += spec.Count
	}
}

func rank(tallies []audit.Tally) ranking {
	return ranking{Of: len(tallies), Top: tallies[:min(ranked, len(tallies))]}
}

func rows(records []v1alpha1.AuditRecord) []row {
	rows := make([]row, 0, len(records))
	for i := range records {
		spec := &records[i].Spec
		_, person, _ := strings.Cut(strings.TrimPrefix(audit.UserName(&spec.User), spec.User.Name), " ")
		acknowledgedBy := ""
		if ack := records[i].Acknowledged(); ack != nil {
			acknowledgedBy = ack.By
		}
		rows = append(rows, row{
			ID: idOf(records[i].Namespace, records[i].Name), Cluster: records[i].Namespace, AcknowledgedBy: acknowledgedBy,
			Name: records[i].Name, Outcome: spec.Outcome, Operation: spec.Operation, Resource: spec.Resource, Object: spec.Object,
			User: spec.User.Name, Person: person, Reason: spec.Reason, Caller: spec.Caller, Count: spec.Count, LastTime: spec.LastTime,
		})
	}
	return rows
}

// timeline is writes over time, in bars of equal width.
type timeline struct {
	Bars []bar `json:"bars"`
	// End is where the last bar ends.
	End time.Time `json:"end"`
}

// bar counts the writes from its start to the next bar's.
type bar struct {
	Start time.Time `json:"start"`
	// Counts has the number of writes by outcome; outcomes without a write are left out.
	Counts map[v1alpha1.Outcome]int64 `json:"counts"`
}

// maxBars fits on a small screen, with bars wide enough to point at.
const maxBars = 72

const day = 24 * time.Hour

type span struct {
	since, until time.Time
	place        *time.Location
}

// minSpan makes a timeline of records of one moment, whose start is open, more than one bar.
const minSpan = 30 * time.Minute

// maxSpan bounds a timeline, which also ends within a day: a record of a wrong clock must not hide the others.
const maxSpan = 10 * 365 * day

// spanOf is the time of the query, within these bounds. An open end is the oldest record, or now.
func spanOf(records []v1alpha1.AuditRecord, query query, now time.Time) span {
	s := span{since: query.filter.Since, until: query.filter.Until, place: query.place}
	if s.until.IsZero() {
		s.until = now
		if len(records) > 0 && records[0].Spec.LastTime.After(now) {
			s.until = records[0].Spec.LastTime.Add(time.Second)
		}
	}
	s.until = earlier(s.until, now.Add(day))
	if s.since.IsZero() {
		s.since = s.until.Add(-day)
		if last := len(records) - 1; last >= 0 {
			s.since = records[last].Spec.LastTime.Time
		}
		s.since = earlier(s.since, s.until.Add(-minSpan))
	}
	if earliest := s.until.Add(-maxSpan); s.since.Before(earliest) {
		s.since = earliest
	}
	return s
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// newTimeline counts the writes of each record at its last write. A write outside the span counts at its edge.
func newTimeline(records []v1alpha1.AuditRecord, s span) timeline {
	line := emptyTimeline(s)
	for i := range records {
		spec := &records[i].Spec
		at := sort.Search(len(line.Bars), func(i int) bool { return line.Bars[i].Start.After(spec.LastTime.Time) })
		line.Bars[max(at-1, 0)].Counts[spec.Outcome] += spec.Count
	}
	return line
}

// emptyTimeline has at least one bar.
func emptyTimeline(s span) timeline {
	step := stepOf(s.until.Sub(s.since))
	line := timeline{End: floor(s.since, step, s.place)}
	for len(line.Bars) == 0 || line.End.Before(s.until) {
		line.Bars = append(line.Bars, bar{Start: line.End, Counts: map[v1alpha1.Outcome]int64{}})
		line.End = next(line.End, step, s.place)
	}
	return line
}

// stepOf returns the width of a bar: a usual one, or a number of whole days.
func stepOf(length time.Duration) time.Duration {
	for _, step := range []time.Duration{
		time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day, 7 * day, 14 * day, 30 * day,
	} {
		if length <= maxBars*step {
			return step
		}
	}
	return (length/maxBars + day).Truncate(day)
}

// floor is the start of the bar that a time is in: midnight, or a multiple of the step after it.
func floor(at time.Time, step time.Duration, place *time.Location) time.Time {
	at = at.In(place)
	midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, place)
	if step >= day {
		return midnight
	}
	return midnight.Add(at.Sub(midnight).Truncate(step))
}

// next adds calendar days if a bar is days long: a day may have 23 hours.
func next(at time.Time, step time.Duration, place *time.Location) time.Time {
	if step >= day {
		return at.In(place).AddDate(0, 0, int(step/day))
	}
	return at.Add(step)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"sort"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

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

// span is from a time to another, in a time zone.
type span struct {
	since, until time.Time
	place        *time.Location
}

// spanOf is the time of the query. An open end is the oldest record, or now.
func spanOf(records []v1alpha1.AuditRecord, query query, now time.Time) span {
	s := span{since: query.filter.Since, until: query.filter.Until, place: query.place}
	if s.until.IsZero() {
		s.until = now
		if len(records) > 0 && records[0].Spec.LastTime.After(now) {
			s.until = records[0].Spec.LastTime.Add(time.Second)
		}
	}
	if s.since.IsZero() {
		s.since = s.until.Add(-day)
		if last := len(records) - 1; last >= 0 {
			s.since = records[last].Spec.LastTime.Time
		}
	}
	return s
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

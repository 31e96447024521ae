// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"testing"
	"time"
	_ "time/tzdata" // this machine may have no table of time zones

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestTimelineHasBarsThatPeopleThinkIn(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		at, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for name, test := range map[string]struct {
		since, until       string
		bars               int
		first, second, end string
	}{
		"an hour, in minutes":                      {"2026-11-25 11:03", "2026-11-25 12:03", 60, "2026-11-25 11:03", "2026-11-25 11:04", "2026-11-25 12:03"},
		"a day, in half hours":                     {"2026-11-24 12:10", "2026-11-25 12:10", 49, "2026-11-24 12:00", "2026-11-24 12:30", "2026-11-25 12:30"},
		"a month, in halves of a day":              {"2026-10-28 15:00", "2026-11-25 15:00", 57, "2026-10-28 12:00", "2026-10-29 00:00", "2026-11-26 00:00"},
		"ninety days, in two days":                 {"2026-06-01 10:00", "2026-08-30 10:00", 46, "2026-06-01 00:00", "2026-06-03 00:00", "2026-09-01 00:00"},
		"days stay days where the clock goes back": {"2026-10-01 00:00", "2026-11-25 00:00", 55, "2026-10-01 00:00", "2026-10-02 00:00", "2026-11-25 00:00"},
		"years, after a clock was wrong":           {"1970-01-01 00:00", "2026-11-25 00:00", 72, "1970-01-01 00:00", "1970-10-17 00:00", ""},
		"nothing but a moment":                     {"2026-11-25 12:00", "2026-11-25 12:00", 1, "2026-11-25 12:00", "", "2026-11-25 12:01"},
	} {
		t.Run(name, func(t *testing.T) {
			line := emptyTimeline(span{since: at(test.since), until: at(test.until), place: berlin})
			if len(line.Bars) != test.bars {
				t.Fatalf("got %d bars, want %d: %v", len(line.Bars), test.bars, line.Bars)
			}
			for i, want := range []string{test.first, test.second} {
				if want != "" && !line.Bars[i].Start.Equal(at(want)) {
					t.Errorf("bar %d starts at %s, want %s", i, line.Bars[i].Start, want)
				}
			}
			if test.end != "" && !line.End.Equal(at(test.end)) {
				t.Errorf("it ends at %s, want %s", line.End, test.end)
			}
		})
	}
}

func TestTimelineCountsEveryRecordOnce(t *testing.T) {
	records := []v1alpha1.AuditRecord{*fact(v1alpha1.Denied, "UPDATE", "a", "alice", -5)}
	for _, minutes := range []int{0, 1, 59, 60, 61, 1439, 1440, 1500} {
		records = append(records, *fact(v1alpha1.Denied, "UPDATE", "a", "alice", minutes))
	}
	line := newTimeline(records, span{since: noon.Add(-day), until: noon, place: time.UTC})
	total := int64(0)
	for i, bar := range line.Bars {
		total += bar.Counts[v1alpha1.Denied]
		if i > 0 && !bar.Start.After(line.Bars[i-1].Start) {
			t.Errorf("bar %d starts at %s, after one at %s", i, bar.Start, line.Bars[i-1].Start)
		}
	}
	if total != int64(len(records)) {
		t.Errorf("counted %d of %d records", total, len(records))
	}
}

func TestTimelineCountsAWriteInItsBar(t *testing.T) {
	line := emptyTimeline(span{since: noon.Add(-day), until: noon, place: time.UTC})
	for want, at := range map[int]time.Time{
		0: line.Bars[0].Start, 1: line.Bars[1].Start, 2: line.Bars[3].Start.Add(-1), len(line.Bars) - 1: line.End.Add(-1),
	} {
		record := *fact(v1alpha1.Denied, "UPDATE", "a", "alice", 0)
		record.Spec.LastTime.Time = at
		counted := newTimeline([]v1alpha1.AuditRecord{record}, span{since: noon.Add(-day), until: noon, place: time.UTC})
		for i, bar := range counted.Bars {
			if (bar.Counts[v1alpha1.Denied] > 0) != (i == want) {
				t.Errorf("%s: bar %d counts %v, want the count in bar %d", at, i, bar.Counts, want)
			}
		}
	}
}

func TestRecordsOfOneMomentAreMoreThanOneBar(t *testing.T) {
	t.Parallel()
	record := *fact(v1alpha1.Denied, "UPDATE", "a", "alice", 0)
	for name, test := range map[string]struct {
		now   time.Time
		since time.Time
		bars  int
	}{
		"now":                      {noon, time.Time{}, 30},
		"a minute ago":             {noon.Add(time.Minute), time.Time{}, 30},
		"a record of the future":   {noon.Add(-day), time.Time{}, 30},
		"a record of a far future": {noon.AddDate(-8000, 0, 0), time.Time{}, 30},
		"a record of a far past":   {noon.AddDate(5000, 0, 0), time.Time{}, 72},
		"a minute that was chosen": {noon.Add(time.Minute), noon, 1},
	} {
		q := query{place: time.UTC}
		q.filter.Since = test.since
		if line := newTimeline([]v1alpha1.AuditRecord{record}, spanOf([]v1alpha1.AuditRecord{record}, q, test.now)); len(line.Bars) != test.bars {
			t.Errorf("%s: %d bars, want %d", name, len(line.Bars), test.bars)
		}
	}
}

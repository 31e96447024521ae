// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// section is a part of the document in any format. Its texts are not escaped.
type section struct {
	title string
	texts []string
	table table
}

// table has a bar in each row if bars is not nil: its share of the largest, of 100.
type table struct {
	head []string
	rows [][]string
	bars []int
	// numbers is how many of the last columns are numbers.
	numbers int
}

// maxRows bounds a table of the document; the JSON has all rows.
const maxRows = 200

const title = "Audit report: writes to reserved resources"

func (r *Report) sections() []section {
	sections := []section{
		r.overview(),
		{"Outcomes", nil, tallied("Outcome", r.ByOutcome).total()},
		{"Trend", nil, tallied("Time", r.Trend)},
		{"Users", nil, tallied("User", r.ByUser)},
		{"Resources", nil, tallied("Resource", r.ByResource)},
		{"Reasons", nil, tallied("Reason", r.ByReason)},
		r.gaps(), r.unlocked(), r.exempted(), r.acknowledged(), r.unseen(), r.complete(),
	}
	for i := range sections {
		t := &sections[i].table
		if more := len(t.rows) - maxRows; more > 0 {
			t.rows = t.rows[:maxRows]
			note := fmt.Sprintf("The first %d rows are shown, and %d are not: -o json has all.", maxRows, more)
			sections[i].texts = append(sections[i].texts, note)
		}
	}
	return sections
}

func (r *Report) overview() section {
	return section{"Overview", nil, table{head: []string{"What", "Value"}, rows: [][]string{
		{"Cluster", cmp.Or(r.Cluster, "not named")},
		{"Filter", cmp.Or(r.Filter, "none: all records of the time")},
		{"Time", r.clock(r.Since.Time) + " to " + r.clock(r.Until.Time)},
		{"Made", r.clock(r.Made.Time) + " by apigw-guardian " + r.Version},
		{"Recorded writes", fmt.Sprintf("%d in %d records", r.Totals.Writes, r.Records)},
		{"Denied", strconv.FormatInt(r.Totals.Denied, 10)},
		{"Allowed on purpose", strconv.FormatInt(r.Totals.Allowed, 10)},
		{"Neither", strconv.FormatInt(r.Totals.Other, 10)},
		{"Gaps in protection", strconv.Itoa(len(r.Gaps))},
		{"Records that no user has acknowledged", strconv.Itoa(len(r.Unacknowledged))},
		{"Compared with the API server's audit log", r.compared()},
	}}}
}

func (r *Report) compared() string {
	switch c := r.Completeness; {
	case c == nil:
		return "no: give --audit-log"
	case c.BrokenLines > 0:
		return fmt.Sprintf("in part: %d lines cannot be parsed; %d denials have no record", c.BrokenLines, c.MissingDenials)
	default:
		return fmt.Sprintf("yes: %d denials have no record", c.MissingDenials)
	}
}

func tallied(name string, tallies []Tally) table {
	t := table{head: []string{name, "Denied", "Allowed", "Neither", "Writes"}, numbers: 4, bars: []int{}}
	largest := int64(1)
	for _, tally := range tallies {
		largest = max(largest, tally.Writes)
	}
	for _, tally := range tallies {
		row := []string{cmp.Or(tally.Name, "not known")}
		for _, count := range []int64{tally.Denied, tally.Allowed, tally.Other, tally.Writes} {
			row = append(row, strconv.FormatInt(count, 10))
		}
		t.rows, t.bars = append(t.rows, row), append(t.bars, int(float64(tally.Writes)/float64(largest)*100))
	}
	return t
}

// total leaves the sum of all writes only.
func (t table) total() table {
	for i, row := range t.rows {
		t.rows[i] = []string{row[0], row[len(row)-1]}
	}
	t.head, t.numbers = []string{t.head[0], "Writes"}, 1
	return t
}

func (r *Report) gaps() section {
	s := section{title: "Gaps in protection", table: table{head: []string{"From", "To", "Outcome", "Resource", "User", "What", "Record"}}}
	for _, gap := range r.Gaps {
		s.table.rows = append(s.table.rows, []string{
			r.clock(gap.From.Time), r.clock(gap.To.Time), string(gap.Outcome), gap.Resource, gap.User, gap.Message, gap.Record,
		})
	}
	return s.orNone("No gap, drift or tampering is recorded.")
}

func (r *Report) unlocked() section {
	s := section{title: "Unlocks", table: table{
		head: []string{"Unlock", "Reason", "Requested by", "Approved by", "From", "To", "State", "Writes"}, numbers: 1,
	}}
	if r.UnlocksProblem != "" {
		s.texts = append(s.texts, "Unlocks without a recorded write are not known: "+r.UnlocksProblem)
	}
	for _, u := range r.Unlocks {
		var from, to string
		if u.From != nil {
			from, to = r.clock(u.From.Time), r.clock(u.To.Time)
		}
		s.table.rows = append(s.table.rows, []string{
			u.Name, u.Reason, u.RequestedBy, u.ApprovedBy, from, to, string(u.State), strconv.FormatInt(u.Writes, 10),
		})
	}
	return s.orNone("No unlock is known.")
}

func (r *Report) exempted() section {
	s := section{title: "Exemptions used", table: table{head: []string{"Reason", "User", "Last", "Writes"}, numbers: 1}}
	for _, e := range r.Exemptions {
		s.table.rows = append(s.table.rows, []string{e.Reason, e.User, r.clock(e.LastTime.Time), strconv.FormatInt(e.Writes, 10)})
	}
	return s.orNone("No write under an exemption is recorded.")
}

func (r *Report) acknowledged() section {
	s := section{title: "Acknowledgements", table: table{head: []string{"At", "By", "Note", "Record", "All writes", "Writes"}, numbers: 1}}
	for _, a := range r.Acknowledgements {
		all := "no: the record counts more since then"
		if a.Current {
			all = "yes"
		}
		s.table.rows = append(s.table.rows, []string{r.clock(a.At.Time), a.By, a.Note, a.Record, all, strconv.FormatInt(a.Count, 10)})
	}
	return s.orNone("No record is acknowledged.")
}

func (r *Report) unseen() section {
	s := section{title: "Not acknowledged"}
	s.table = table{head: []string{"Last", "Outcome", "Resource", "User", "Record", "Writes"}, numbers: 1}
	for _, u := range r.Unacknowledged {
		s.table.rows = append(s.table.rows, []string{
			r.clock(u.LastTime.Time), string(u.Outcome), u.Resource, u.User, u.Record, strconv.FormatInt(u.Count, 10),
		})
	}
	return s.orNone("Every record is acknowledged.")
}

func (r *Report) complete() section {
	s := section{title: "Completeness"}
	c := r.Completeness
	if c == nil {
		s.texts = []string{"The records were not compared with the API server's audit log: give it as --audit-log FILE."}
		return s
	}
	if c.Events > 0 {
		s.texts = append(s.texts, fmt.Sprintf("The log has %d events, %s to %s.", c.Events, r.clock(c.From.Time), r.clock(c.To.Time)))
	}
	s.texts = append(s.texts, fmt.Sprintf("In the log, %d writes were denied and %d allowed with a record. "+
		"Of these, %d writes are in no record, %d of them denials. %d writes succeeded without the guard, "+
		"and %d may have concerned a reserved resource.",
		c.Writes.Denied, c.Writes.LetThrough, c.MissingWrites, c.MissingDenials, c.Writes.Unguarded, c.Writes.Unclear))
	for _, away := range c.Away {
		s.texts = append(s.texts, fmt.Sprintf("The guard did not answer from %s to %s: %d writes were refused, and %d passed.",
			r.clock(away.From.Time), r.clock(away.To.Time), away.Failed, away.Unguarded))
	}
	if c.BrokenLines > 0 {
		s.texts = append(s.texts, fmt.Sprintf("%d lines of the log cannot be parsed, and may hide writes.", c.BrokenLines))
	}
	s.table = table{head: []string{"First", "Outcome", "Resource", "User", "Record", "In the log", "Recorded"}, numbers: 2}
	for _, m := range c.Missing {
		s.table.rows = append(s.table.rows, []string{
			r.clock(m.FirstTime.Time), string(m.Outcome), m.Resource, m.User, m.Record, strconv.FormatInt(m.Logged, 10),
			strconv.FormatInt(m.Recorded, 10),
		})
	}
	return s.orNone("Every such write of the log has a record.")
}

// orNone says that a table is empty.
func (s section) orNone(text string) section {
	if len(s.table.rows) == 0 {
		s.texts = append(s.texts, text)
	}
	return s
}

// clock has the zone, because the reader may be elsewhere.
func (r *Report) clock(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.In(r.place).Format(time.DateTime + " MST")
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Layout says what a table shows. The zero value fits most terminals.
type Layout struct {
	// Wide adds columns, and shortens nothing.
	Wide bool
	// Live is for a table that gets more rows: it shows times instead of ages, and columns wide enough for later rows.
	Live bool
	// Contexts adds a column with the record's namespace, which the caller has set to the context of its cluster.
	Contexts bool
	// Headless leaves the titles of the columns out.
	Headless bool
}

// Table prints records, one per row, in columns that fit the screen.
type Table struct {
	screen   Screen
	headless bool
	columns  []column
	widths   []int
	records  []v1alpha1.AuditRecord
}

// column is one column of a table. The table does not make it narrower than min; 0 means as wide as its widest cell.
type column struct {
	title string
	min   int
	cell  func(Screen, *v1alpha1.AuditRecord) string
}

// NewTable fits the columns to the screen and the records. Texts of later rows are shortened on a terminal.
func NewTable(screen Screen, layout Layout, records []v1alpha1.AuditRecord) *Table {
	sized := records
	if layout.Live {
		sized = append(slices.Clip(records), typical(screen))
	}
	if layout.Wide {
		screen.Width = 0
	}
	var table *Table
	for _, columns := range columnsOf(layout) {
		if table = fit(screen, columns, sized); table.squeeze() {
			break
		}
	}
	table.records, table.headless = records, layout.Headless
	return table
}

// typical is as wide as most records.
func typical(screen Screen) v1alpha1.AuditRecord {
	r := v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Count: 1000, LastTime: metav1.NewMicroTime(screen.Now)}}
	r.Spec.Outcome = longest(v1alpha1.Outcomes())
	r.Spec.Operation = longest(reserved.Operations())
	r.Spec.Reason = longest(append(audit.LeaderReasons(), string(longest(policy.RecordedReasons()))))
	r.Spec.Object.Name, r.Spec.User.Name = strings.Repeat("x", 48), strings.Repeat("x", 24)
	r.Name = "20060102t1504-" + strings.ToLower(string(r.Spec.Operation)) + "-" + strings.Repeat("x", 20)
	return r
}

func longest[T ~string](words []T) T {
	return slices.MaxFunc(words, func(a, b T) int { return len(a) - len(b) })
}

// columnsOf returns the columns of a layout, from the widest to the narrowest choice.
func columnsOf(layout Layout) [][]column {
	outcome, reason, count := column{outcomeTitle, 0, outcome}, column{"REASON", 0, reason}, column{"COUNT", 0, count}
	seen, op, id := column{"SEEN", 0, lastSeen}, column{"OP", 0, operation}, column{"ID", 0, id}
	full := []column{{"LAST SEEN", 0, lastSeen}, outcome, {"OPERATION", 0, operation}, {"RESOURCE", 0, resource}}
	full = append(full, column{"USER", 0, user}, reason, count, column{"NAME", 0, name})
	choices := [][]column{
		full,
		{seen, outcome, op, {"RESOURCE", 18, shortResource}, {"USER", 10, user}, {"REASON", 14, reason.cell}, count, id},
		{seen, outcome, op, {"RESOURCE", 18, shortResource}, {"USER", 10, user}, count, id},
		{seen, outcome, {"RESOURCE", 8, shortResource}, {"USER", 6, user}, id},
	}
	if layout.Wide {
		choices = [][]column{append(full, wideColumns()...)}
	}
	if layout.Contexts {
		for i := range choices {
			choices[i] = append([]column{{"CONTEXT", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return r.Namespace }}}, choices[i]...)
		}
	}
	if layout.Live {
		for _, columns := range choices {
			columns[0] = column{"TIME", 0, func(s Screen, r *v1alpha1.AuditRecord) string { return s.clock(r.Spec.LastTime.Time) }}
		}
	}
	return choices
}

func wideColumns() []column {
	return []column{
		{"CHANGED", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.Changed, ",") }},
		{"FIRST SEEN", 0, func(s Screen, r *v1alpha1.AuditRecord) string { return s.age(r.Spec.FirstTime.Time) }},
		{"REQUEST UID", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.LastRequestUID }},
		{"REPLICA", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.Replica }},
		{"SOURCE", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Source) }},
		{"CALLER", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Caller) }},
		{"GROUPS", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.User.Groups, ",") }},
		{"ACKNOWLEDGED BY", 0, acknowledgedBy},
	}
}

const outcomeTitle = "OUTCOME"

func lastSeen(s Screen, r *v1alpha1.AuditRecord) string  { return s.age(r.Spec.LastTime.Time) }
func operation(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Operation) }
func reason(_ Screen, r *v1alpha1.AuditRecord) string    { return r.Spec.Reason }
func count(_ Screen, r *v1alpha1.AuditRecord) string     { return strconv.FormatInt(r.Spec.Count, 10) }
func name(_ Screen, r *v1alpha1.AuditRecord) string      { return r.Name }
func resource(_ Screen, r *v1alpha1.AuditRecord) string  { return r.Spec.Resource }

func acknowledgedBy(_ Screen, r *v1alpha1.AuditRecord) string {
	if ack := r.Acknowledged(); ack != nil {
		return ack.By
	}
	return ""
}

// outcome marks the writes that a reviewer looks for, on a terminal: it may have no colours.
func outcome(s Screen, r *v1alpha1.AuditRecord) string {
	switch {
	case s.Width == 0:
		return string(r.Spec.Outcome)
	case r.Spec.Outcome.IsAllowed():
		return "  " + string(r.Spec.Outcome)
	}
	return "✗ " + string(r.Spec.Outcome)
}

func shortResource(_ Screen, r *v1alpha1.AuditRecord) string {
	object := r.Spec.Object
	object.Group = ""
	return object.String()
}

// unverifiedMark precedes the user in a record of an unverified caller, who may have forged the name.
const unverifiedMark = "unverified:"

func user(_ Screen, r *v1alpha1.AuditRecord) string {
	if r.Spec.Caller == v1alpha1.CallerUnverified {
		return unverifiedMark + audit.UserName(&r.Spec.User)
	}
	return audit.UserName(&r.Spec.User)
}

// id is the beginning of the digest in a name, by which audit show finds the record.
func id(_ Screen, r *v1alpha1.AuditRecord) string {
	digest := r.Name[strings.LastIndexByte(r.Name, '-')+1:]
	return digest[:min(len(digest), 8)]
}

// fit makes each column as wide as its widest cell.
func fit(screen Screen, columns []column, records []v1alpha1.AuditRecord) *Table {
	t := &Table{screen: screen, columns: columns, widths: make([]int, len(columns))}
	for i := range columns {
		t.widths[i] = cells(columns[i].title)
		for j := range records {
			t.widths[i] = max(t.widths[i], cells(columns[i].text(screen, &records[j])))
		}
	}
	return t
}

// text is the cell, or "-" for an empty one.
func (c *column) text(screen Screen, record *v1alpha1.AuditRecord) string {
	return cmp.Or(c.cell(screen, record), "-")
}

const gap = 2

// squeeze narrows the columns that have a min, the widest first, until the table fits the screen. It reports whether it fits.
func (t *Table) squeeze() bool {
	if t.screen.Width == 0 {
		return true
	}
	excess := gap*(len(t.widths)-1) - t.screen.Width
	for _, w := range t.widths {
		excess += w
	}
	for ; excess > 0; excess-- {
		widest := -1
		for i := range t.columns {
			if least := t.columns[i].min; least > 0 && t.widths[i] > least && (widest < 0 || t.widths[i] > t.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		t.widths[widest]--
	}
	return true
}

// Write prints the header and all rows.
func (t *Table) Write(w io.Writer) error {
	buffer := bufio.NewWriter(w) // keeps its first error for Flush
	_ = t.Header(buffer)
	for i := range t.records {
		_ = t.Row(buffer, &t.records[i])
	}
	if err := buffer.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// Header prints the titles of the columns, unless the layout has none.
func (t *Table) Header(w io.Writer) error {
	if t.headless {
		return nil
	}
	return t.line(w, func(c *column) string { return c.title }, func(_ *column, text string) string { return t.screen.bold(text) })
}

// Row prints a record.
func (t *Table) Row(w io.Writer, record *v1alpha1.AuditRecord) error {
	return t.line(w, func(c *column) string { return c.text(t.screen, record) }, func(c *column, text string) string {
		if c.title == outcomeTitle {
			return t.screen.paint(record.Spec.Outcome, text)
		}
		return text
	})
}

// line prints one line. What decorate adds takes no room on a terminal.
func (t *Table) line(w io.Writer, text func(*column) string, decorate func(*column, string) string) error {
	var line strings.Builder
	for i := range t.columns {
		c := &t.columns[i]
		content := t.screen.shortened(text(c), t.widths[i])
		line.WriteString(decorate(c, content))
		if i < len(t.columns)-1 {
			line.WriteString(pad("", t.widths[i]-cells(content)+gap))
		}
	}
	_, err := io.WriteString(w, line.String()+"\n")
	return err
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"io"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Layout says what a table shows. The zero value is what fits most terminals.
type Layout struct {
	// Wide adds columns, and shortens nothing.
	Wide bool
	// Live is for rows that go on coming: it shows times of day and not ages, as a row that stays on the screen must not say "3s"
	// for an hour, and makes the columns wide enough for rows to come.
	Live bool
}

// Table is records, a row each, in columns that fit the screen.
type Table struct {
	screen  Screen
	columns []column
	widths  []int
}

// column is one column of a table.
type column struct {
	title string
	// least is how far the column may be narrowed. 0: it stays as wide as its widest cell.
	least int
	cell  func(Screen, *v1alpha1.AuditRecord) string
}

// NewTable fits the columns to the screen and to the records. Rows of other records can be written too: where their texts are
// longer, they are shortened, or on no terminal make their row longer.
func NewTable(screen Screen, layout Layout, records []v1alpha1.AuditRecord) *Table {
	if layout.Live {
		records = append(slices.Clip(records), typical(screen))
	}
	if layout.Wide {
		screen.Width = 0
		return fit(screen, wideColumns(layout), records)
	}
	var table *Table
	for _, columns := range [][]column{fullColumns(layout), shortColumns(layout), fewColumns(layout), fewestColumns(layout)} {
		table = fit(screen, columns, records)
		if table.squeeze() {
			break
		}
	}
	return table
}

// typical is as wide as most records: the longest words of the closed lists, and names of some length.
func typical(screen Screen) v1alpha1.AuditRecord {
	r := v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Count: 1000, LastTime: metav1.NewMicroTime(screen.Now)}}
	for _, word := range v1alpha1.Outcomes() {
		r.Spec.Outcome = v1alpha1.Outcome(longer(string(r.Spec.Outcome), string(word)))
	}
	for _, word := range audit.Operations() {
		r.Spec.Operation = admissionv1.Operation(longer(string(r.Spec.Operation), string(word)))
	}
	for _, word := range policy.RecordedReasons() {
		r.Spec.Reason = longer(r.Spec.Reason, string(word))
	}
	for _, word := range audit.TamperedReasons() {
		r.Spec.Reason = longer(r.Spec.Reason, word)
	}
	r.Spec.Object.Name, r.Spec.User.Name = strings.Repeat("x", 48), strings.Repeat("x", 24)
	r.Name = "20060102t1504-" + strings.ToLower(string(r.Spec.Operation)) + "-" + strings.Repeat("x", 20)
	return r
}

func longer(a, b string) string {
	if len(b) > len(a) {
		return b
	}
	return a
}

func fullColumns(layout Layout) []column {
	return []column{
		seen(layout, "LAST SEEN"), outcome(), operation("OPERATION"),
		{"RESOURCE", 0, resource},
		{"USER", 0, user},
		{"REASON", 0, reason},
		count(),
		{"NAME", 0, name},
	}
}

// shortColumns name no API groups and no more of the record's name than tells it from others.
func shortColumns(layout Layout) []column {
	return []column{
		seen(layout, "SEEN"), outcome(), operation("OP"),
		{"RESOURCE", 28, shortResource},
		{"USER", 16, user},
		{"REASON", 0, reason},
		count(),
		{"ID", 0, id},
	}
}

func fewColumns(layout Layout) []column {
	return []column{
		seen(layout, "SEEN"), outcome(), operation("OP"), {"RESOURCE", 18, shortResource}, {"USER", 10, user}, count(), {"ID", 0, id},
	}
}

func fewestColumns(layout Layout) []column {
	return []column{seen(layout, "SEEN"), outcome(), {"RESOURCE", 8, shortResource}, {"USER", 6, user}, {"ID", 0, id}}
}

func wideColumns(layout Layout) []column {
	return append(fullColumns(layout), []column{
		{"CHANGED", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.Changed, ",") }},
		{"FIRST SEEN", 0, func(s Screen, r *v1alpha1.AuditRecord) string { return s.age(r.Spec.FirstTime.Time) }},
		{"REQUEST UID", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.LastRequestUID }},
		{"REPLICA", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.Replica }},
		{"SOURCE", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Source) }},
		{"CALLER", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Caller) }},
		{"GROUPS", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.User.Groups, ",") }},
	}...)
}

func seen(layout Layout, title string) column {
	if layout.Live {
		return column{"TIME", 0, func(s Screen, r *v1alpha1.AuditRecord) string { return s.clock(r.Spec.LastTime.Time) }}
	}
	return column{title, 0, func(s Screen, r *v1alpha1.AuditRecord) string { return s.age(r.Spec.LastTime.Time) }}
}

const outcomeTitle = "OUTCOME"

func outcome() column {
	return column{outcomeTitle, 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Outcome) }}
}

func operation(title string) column {
	return column{title, 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return string(r.Spec.Operation) }}
}

func count() column {
	return column{"COUNT", 0, func(_ Screen, r *v1alpha1.AuditRecord) string { return strconv.FormatInt(r.Spec.Count, 10) }}
}

func resource(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.Resource }

func shortResource(_ Screen, r *v1alpha1.AuditRecord) string {
	object := r.Spec.Object
	object.Group = ""
	return object.String()
}

// unverifiedMark stands before the user in a record of a caller that was not verified: it may have made the name up.
const unverifiedMark = "unverified:"

func user(_ Screen, r *v1alpha1.AuditRecord) string {
	if r.Spec.Caller == v1alpha1.CallerUnverified {
		return unverifiedMark + r.Spec.User.Name
	}
	return r.Spec.User.Name
}

func reason(_ Screen, r *v1alpha1.AuditRecord) string { return r.Spec.Reason }

func name(_ Screen, r *v1alpha1.AuditRecord) string { return r.Name }

// id is the beginning of the digest at the end of a name: enough to tell records apart, and to find one by.
func id(_ Screen, r *v1alpha1.AuditRecord) string {
	const most = 8
	digest := r.Name[strings.LastIndexByte(r.Name, '-')+1:]
	return digest[:min(len(digest), most)]
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

// text is the cell; "-" keeps the place of an empty one, for people and for awk.
func (c *column) text(screen Screen, record *v1alpha1.AuditRecord) string {
	if text := c.cell(screen, record); text != "" {
		return text
	}
	return "-"
}

const gap = 2

func (t *Table) total() int {
	total := gap * (len(t.widths) - 1)
	for _, w := range t.widths {
		total += w
	}
	return total
}

// squeeze narrows the columns that may be narrowed, the widest first, until the table fits the screen. It reports whether it does.
func (t *Table) squeeze() bool {
	if t.screen.Width == 0 {
		return true
	}
	for excess := t.total() - t.screen.Width; excess > 0; excess-- {
		widest := -1
		for i := range t.columns {
			if least := t.columns[i].least; least > 0 && t.widths[i] > least && (widest < 0 || t.widths[i] > t.widths[widest]) {
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

// Header writes the titles of the columns.
func (t *Table) Header(w io.Writer) error {
	return t.line(w, func(c *column) string { return c.title }, func(_ *column, text string) string { return t.screen.bold(text) })
}

// Row writes a record.
func (t *Table) Row(w io.Writer, record *v1alpha1.AuditRecord) error {
	return t.line(w, func(c *column) string { return c.text(t.screen, record) }, func(c *column, text string) string {
		if c.title == outcomeTitle {
			return t.screen.paint(record.Spec.Outcome, text)
		}
		return text
	})
}

// line writes one line. What decorate adds takes no room on a terminal.
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
	line.WriteByte('\n')
	_, err := io.WriteString(w, line.String())
	return err
}

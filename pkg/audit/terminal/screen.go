// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package terminal prints audit records on a terminal. Their texts must be printable, as audit.Clean makes them.
package terminal

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Screen describes the terminal and its reader. Now and Place are required.
type Screen struct {
	// Width is the number of columns. 0 is no terminal: texts are not shortened, and bars are ASCII.
	Width  int
	Colour bool
	Now    time.Time
	// Place is the time zone.
	Place *time.Location
}

// age is how long ago a time was: "3m12s", "7d"; "in 5m" if clocks differ.
func (s Screen) age(at time.Time) string {
	if ahead := at.Sub(s.Now); ahead >= time.Second {
		return "in " + duration.HumanDuration(ahead)
	}
	return duration.HumanDuration(max(s.Now.Sub(at), 0))
}

// clock is a time of today, or an earlier day and month, in eight columns at most.
func (s Screen) clock(at time.Time) string {
	at, now := at.In(s.Place), s.Now.In(s.Place)
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) || at.After(now) {
		return at.Format(time.TimeOnly)
	}
	return at.Format("Jan 02")
}

// paint colours an outcome by its severity.
func (s Screen) paint(outcome v1alpha1.Outcome, text string) string {
	if !s.Colour {
		return text
	}
	const red, green, yellow, cyan, plain = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[0m"
	switch outcome {
	case v1alpha1.Denied, v1alpha1.Unguarded, v1alpha1.Tampered, v1alpha1.Drift:
		return red + text + plain
	case v1alpha1.WouldDeny, v1alpha1.Gap:
		return yellow + text + plain
	case v1alpha1.Unlocked, v1alpha1.Exempted, v1alpha1.Rotated, v1alpha1.Retired:
		return cyan + text + plain
	case v1alpha1.Restored, v1alpha1.Authorized, v1alpha1.Allowed:
		return green + text + plain
	}
	return text
}

func (s Screen) bold(text string) string {
	if !s.Colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// cells is how many columns of a terminal a text needs.
func cells(text string) int {
	total := 0
	for _, r := range text {
		total += cellsOf(r)
	}
	return total
}

func cellsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

const ellipsis = "…"

// shorten cuts the middle out of a text that needs more columns. Users and resources are known by both ends, mostly the second.
func shorten(text string, columns int) string {
	if cells(text) <= columns {
		return text
	}
	keep := max(columns-cells(ellipsis), 0)
	runes := []rune(text)
	head, used := 0, 0
	for head < len(runes) && used+cellsOf(runes[head]) <= keep/3 {
		used += cellsOf(runes[head])
		head++
	}
	tail := len(runes)
	for tail > head && used+cellsOf(runes[tail-1]) <= keep {
		tail--
		used += cellsOf(runes[tail])
	}
	return string(runes[:head]) + ellipsis + string(runes[tail:])
}

func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(columns-cells(text), 0))
}

// field is one line of a record. Its name is empty if the line continues a list.
type field struct{ name, text string }

// Record prints all fields of a record, one per line, and what to do about it.
func (s Screen) Record(w io.Writer, record *v1alpha1.AuditRecord) error {
	var text strings.Builder
	s.write(&text, s.fields(record))
	text.WriteString("\n" + s.bold("What to do") + "\n" + audit.Advice(&record.Spec) + "\n")
	_, err := io.WriteString(w, text.String())
	return err
}

// write writes the fields that have a text.
func (s Screen) write(text *strings.Builder, fields []field) {
	for _, f := range fields {
		if f.text != "" {
			text.WriteString(s.bold(pad(f.name, 14)) + f.text + "\n")
		}
	}
}

func (s Screen) fields(record *v1alpha1.AuditRecord) []field {
	spec := &record.Spec
	var counts []string
	if len(spec.Counts) > 1 {
		for _, count := range spec.Counts {
			counts = append(counts, fmt.Sprintf("%s: %d", count.Replica, count.Count))
		}
	}
	return slices.Concat(
		[]field{
			{"Record", record.Name},
			{"Outcome", s.paint(spec.Outcome, string(spec.Outcome))},
			{"Operation", string(spec.Operation)},
			{"Resource", spec.Resource},
		},
		list("Changed", spec.Changed),
		[]field{
			{"Reason", spec.Reason},
			{"Message", spec.Message},
			{"Unlock", spec.Unlock},
			{"Justification", spec.Justification},
			{"User", spec.User.Name},
			{"User uid", spec.User.UID},
		},
		list("Groups", spec.User.Groups),
		list("User extra", audit.ExtraLines(&spec.User)),
		[]field{
			{"Count", strconv.FormatInt(spec.Count, 10)},
			{"First seen", s.moment(spec.FirstTime.Time)},
			{"Last seen", s.moment(spec.LastTime.Time)},
			{"Request uid", spec.LastRequestUID},
			{"Replica", spec.Replica},
		},
		list("Counted by", counts),
		[]field{{"Source", string(spec.Source)}, {"Caller", callerOf(spec)}},
		list("Acknowledged", append(audit.Acknowledgements(record), unseen(record)...)),
	)
}

// callerOf says whether the caller proved to be an API server.
func callerOf(spec *v1alpha1.AuditRecordSpec) string {
	switch {
	case spec.Caller == v1alpha1.CallerUnverified:
		return "Unverified: it presented no client certificate of an API server, and may have made this up"
	case spec.Caller == "" && spec.Source == v1alpha1.SourceGuard:
		return "Not asked for a client certificate"
	}
	return string(spec.Caller)
}

// unseen says how many writes came after the last acknowledgement.
func unseen(record *v1alpha1.AuditRecord) []string {
	acks := record.Status.Acknowledgements
	if len(acks) == 0 || record.Acknowledged() != nil {
		return nil
	}
	return []string{"not since then: the record counts " + plural(record.Spec.Count, "write")}
}

// list is one field of several lines.
func list(name string, texts []string) []field {
	fields := make([]field, 0, len(texts))
	for _, text := range texts {
		fields = append(fields, field{name, text})
		name = ""
	}
	return fields
}

// moment is a time and its age: "2026-11-25 09:20:01 CET (3m12s ago)".
func (s Screen) moment(at time.Time) string {
	age := s.age(at)
	if !strings.HasPrefix(age, "in ") {
		age += " ago"
	}
	return at.In(s.Place).Format(time.DateTime+" MST") + " (" + age + ")"
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// field is one line of a record. Its name is empty if the line continues a list.
type field struct{ name, text string }

// Record prints all fields of a record, one per line, and what to do about it.
func (s Screen) Record(w io.Writer, record *v1alpha1.AuditRecord) error {
	var text strings.Builder
	for _, f := range s.fields(record) {
		shown := f.text
		if f.name == "Outcome" {
			shown = s.paint(record.Spec.Outcome, shown)
		}
		if f.text != "" {
			text.WriteString(s.bold(pad(f.name, 14)) + shown + "\n")
		}
	}
	text.WriteString("\n" + s.bold("What to do") + "\n" + audit.Advice(&record.Spec) + "\n")
	_, err := io.WriteString(w, text.String())
	return err
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
			{"Outcome", string(spec.Outcome)},
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
		[]field{
			{"Count", strconv.FormatInt(spec.Count, 10)},
			{"First seen", s.moment(spec.FirstTime.Time)},
			{"Last seen", s.moment(spec.LastTime.Time)},
			{"Request uid", spec.LastRequestUID},
			{"Replica", spec.Replica},
		},
		list("Counted by", counts),
		[]field{{"Source", string(spec.Source)}, {"Caller", callerOf(spec)}},
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

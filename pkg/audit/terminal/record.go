// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// fact is one line of a record; its name is empty where the line goes on with what the one before began.
type fact struct{ name, text string }

// Record writes all that a record says, a line per fact, and what to do about it.
func (s Screen) Record(w io.Writer, record *v1alpha1.AuditRecord) error {
	var text strings.Builder
	for _, f := range s.facts(record) {
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

func (s Screen) facts(record *v1alpha1.AuditRecord) []fact {
	spec := &record.Spec
	facts := []fact{
		{"Record", record.Name},
		{"Outcome", string(spec.Outcome)},
		{"Operation", string(spec.Operation)},
		{"Resource", spec.Resource},
	}
	facts = append(facts, list("Changed", spec.Changed)...)
	facts = append(facts,
		fact{"Reason", spec.Reason},
		fact{"Message", spec.Message},
		fact{"User", spec.User.Name},
		fact{"User uid", spec.User.UID})
	facts = append(facts, list("Groups", spec.User.Groups)...)
	facts = append(facts,
		fact{"Count", strconv.FormatInt(spec.Count, 10)},
		fact{"First seen", s.moment(spec.FirstTime.Time)},
		fact{"Last seen", s.moment(spec.LastTime.Time)},
		fact{"Request uid", spec.LastRequestUID},
		fact{"Replica", spec.Replica})
	if len(spec.Counts) > 1 {
		facts = append(facts, list("Counted by", countsOf(spec.Counts))...)
	}
	return append(facts, fact{"Source", string(spec.Source)}, fact{"Caller", callerOf(spec)})
}

// callerOf says what an API server proved that asked the guard.
func callerOf(spec *v1alpha1.AuditRecordSpec) string {
	switch {
	case spec.Caller == v1alpha1.CallerUnverified:
		return "Unverified: it presented no client certificate of an API server, and may have made this up"
	case spec.Caller == "" && spec.Source == v1alpha1.SourceGuard:
		return "Not asked for a client certificate"
	}
	return string(spec.Caller)
}

// list is one fact of several lines.
func list(name string, texts []string) []fact {
	facts := make([]fact, 0, len(texts))
	for _, text := range texts {
		facts = append(facts, fact{name, text})
		name = ""
	}
	return facts
}

func countsOf(counts []v1alpha1.ReplicaCount) []string {
	texts := make([]string, 0, len(counts))
	for _, count := range counts {
		texts = append(texts, fmt.Sprintf("%s: %d", count.Replica, count.Count))
	}
	return texts
}

// moment is a time and its age: "2026-11-25 09:20:01 CET (3m12s ago)".
func (s Screen) moment(at time.Time) string {
	age := s.age(at)
	if !strings.HasPrefix(age, "in ") {
		age += " ago"
	}
	return at.In(s.Place).Format(time.DateTime+" MST") + " (" + age + ")"
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
)

// log is a position in the API server's audit log.
type log struct{ offset int64 }

func startOfLog(t *testing.T) log {
	t.Helper()
	info, err := os.Stat(harness.Of(t).Cluster.AuditLog())
	must(t, err)
	return log{offset: info.Size()}
}

// events returns the events since the position.
func (l log) events(t *testing.T) []*apilog.Event {
	t.Helper()
	file, err := os.Open(harness.Of(t).Cluster.AuditLog())
	must(t, err)
	defer func() { _ = file.Close() }()
	_, err = file.Seek(l.offset, io.SeekStart)
	must(t, err)
	var events []*apilog.Event
	for event, err := range apilog.Events(file) {
		must(t, err)
		events = append(events, event)
	}
	return events
}

// counts returns the number of writes by outcome and record, according to the API server. A dry-run has no record.
func (l log) counts(t *testing.T) map[v1alpha1.Outcome]map[string]int64 {
	t.Helper()
	counts := map[v1alpha1.Outcome]map[string]int64{v1alpha1.Unlocked: {}, v1alpha1.Denied: {}}
	for _, event := range l.events(t) {
		for _, decision := range event.Decisions {
			if counts[decision.Outcome] == nil || event.DryRun {
				continue
			}
			if decision.Record == "" {
				t.Errorf("the audit event %s (%s) names no record", event.ID, decision.Outcome)
			}
			counts[decision.Outcome][decision.Record]++
		}
	}
	return counts
}

// reasonOf returns the reason of the guard's decision about a request, or "" if the guard decided nothing.
func (l log) reasonOf(t *testing.T, auditID string) string {
	t.Helper()
	reason := ""
	for _, event := range l.events(t) {
		for _, decision := range event.Decisions {
			if event.ID == auditID && decision.Decision == "deny" {
				reason = decision.Reason
			}
		}
	}
	return reason
}

// recordCounts returns the counts of the records with the outcome, by name.
func recordCounts(t *testing.T, outcome v1alpha1.Outcome) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	for _, record := range recordsOf(t, audit.Filter{Outcome: string(outcome)}) {
		counts[record.Name] = record.Spec.Count
	}
	return counts
}

func recordsOf(t *testing.T, filter audit.Filter) []v1alpha1.AuditRecord {
	t.Helper()
	records, err := harness.Records(t).List(t.Context(), filter)
	must(t, err)
	return records
}

// baseline is what was recorded before a test.
type baseline struct {
	log
	before map[v1alpha1.Outcome]map[string]int64
}

func startCount(t *testing.T) baseline {
	t.Helper()
	b := baseline{log: startOfLog(t), before: map[v1alpha1.Outcome]map[string]int64{}}
	for _, outcome := range []v1alpha1.Outcome{v1alpha1.Unlocked, v1alpha1.Denied} {
		b.before[outcome] = recordCounts(t, outcome)
	}
	return b
}

// requireCounted fails the test unless the records count what the API server's audit log has, write by write.
func (b baseline) requireCounted(t *testing.T, replicas []*replica) map[v1alpha1.Outcome]map[string]int64 {
	t.Helper()
	for _, r := range replicas {
		harness.Eventually(t, "all records are stored", func() (bool, any) {
			pending, err := r.guard.Metric(t.Context(), "apigw_guardian_audit_pending_records")
			return err == nil && pending == 0, fmt.Sprintf("%v pending (%v)", pending, err)
		})
	}
	want := b.counts(t)
	for outcome, before := range b.before {
		more := map[string]int64{}
		for name, count := range recordCounts(t, outcome) {
			if count -= before[name]; count > 0 {
				more[name] = count
			}
		}
		if diff := cmp.Diff(want[outcome], more); diff != "" {
			t.Errorf("%s: the audit log and the records differ (-log +records)\n%s", outcome, diff)
		}
	}
	return want
}

func total(counts map[string]int64) int64 {
	sum := int64(0)
	for _, count := range counts {
		sum += count
	}
	return sum
}

// requireRecords fails the test unless the writes under an Unlock are recorded, with its name, its reason and its requester.
func requireRecords(t *testing.T, unlock *v1alpha1.Unlock, writes int64) {
	t.Helper()
	count := int64(0)
	for _, record := range recordsOf(t, audit.Filter{Outcome: string(v1alpha1.Unlocked)}) {
		spec := &record.Spec
		if spec.Unlock != unlock.Name {
			continue
		}
		count += spec.Count
		if spec.Justification != unlock.Spec.Reason || spec.User.Name != unlock.Spec.RequestedBy || spec.Reason != "Unlocked" {
			t.Errorf("record %s: justification %q, user %q, reason %q", record.Name, spec.Justification, spec.User.Name, spec.Reason)
		}
	}
	if count != writes {
		t.Errorf("the records of unlock %s count %d writes, want %d", unlock.Name, count, writes)
	}
}

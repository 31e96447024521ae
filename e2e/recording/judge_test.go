// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
)

// play sends a flood and returns the tally of its clients. It fails the test if a write succeeds.
func play(ctx context.Context, t *testing.T, flood scenario.Flood) scenario.Tally {
	t.Helper()
	tally := flood.Run(ctx, harness.Of(t).World)
	if tally.Allowed > 0 {
		t.Errorf("%d forbidden writes succeeded", tally.Allowed)
	}
	return tally
}

// log is a position in the API server's audit log.
type log struct{ offset int64 }

func startOfLog(t *testing.T) log {
	t.Helper()
	info, err := os.Stat(harness.Of(t).Cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	return log{offset: info.Size()}
}

// logged has the counts of the audit log since a position in it.
type logged struct {
	// denials are counted by the name of their record.
	denials map[string]int64
	// failed counts writes that the API server answered with a server error.
	failed int64
	// unlogged is the max number of calls that may have reached the guard and are not in the audit log: the API server was stopped
	// before it answered them.
	unlogged int64
}

func (l logged) total() int64 {
	total := int64(0)
	for _, count := range l.denials {
		total += count
	}
	return total
}

func (l log) read(t *testing.T) logged {
	t.Helper()
	file, err := os.Open(harness.Of(t).Cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(l.offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	result := logged{denials: map[string]int64{}}
	for event, err := range apilog.Events(file) {
		if err != nil {
			t.Fatal(err)
		}
		result.take(t, event)
	}
	return result
}

func (l *logged) take(t *testing.T, event *apilog.Event) {
	t.Helper()
	denied := false
	for _, decision := range event.Decisions {
		if decision.Decision != "deny" || event.DryRun {
			continue
		}
		if decision.Record == "" {
			t.Errorf("the audit event %s of a denial names no record", event.ID)
		}
		l.denials[decision.Record]++
		denied = true
	}
	if !denied && event.GVR.Resource == "clusterroles" && event.Code >= http.StatusInternalServerError {
		l.failed++
	}
}

// requireCounted compares the records with the audit log. No record may count fewer denials, and their surplus must not exceed the
// failed calls.
func requireCounted(t *testing.T, want logged, before, after map[string]int64) {
	t.Helper()
	surplus := int64(0)
	for name, count := range after {
		surplus += count - before[name] - want.denials[name]
	}
	for name, count := range want.denials {
		if got := after[name] - before[name]; got < count {
			t.Errorf("record %s counts %d of the %d denials in the audit log", name, got, count)
		}
	}
	if surplus < 0 || surplus > want.failed+want.unlogged {
		t.Errorf("the records count %d denials more than the audit log, which has %d failed calls and lacks at most %d",
			surplus, want.failed, want.unlogged)
	}
}

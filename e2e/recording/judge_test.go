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

// play sends a flood, of which no write may succeed, and returns what its clients saw.
func play(ctx context.Context, t *testing.T, flood scenario.Flood) scenario.Tally {
	t.Helper()
	tally := flood.Run(ctx, harness.Of(t).World)
	if tally.Allowed > 0 {
		t.Errorf("%d forbidden writes succeeded", tally.Allowed)
	}
	return tally
}

// log is a place in the API server's audit log.
type log struct{ offset int64 }

func startOfLog(t *testing.T) log {
	t.Helper()
	info, err := os.Stat(harness.Of(t).Cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	return log{offset: info.Size()}
}

// verdicts is what the audit log says has happened since a place in it.
type verdicts struct {
	// denials by the name of the record that the guard gave.
	denials map[string]int64
	// failed are writes that the API server could not ask the guard about, or answered itself as failed.
	failed int64
	// unlogged is how many calls may have reached the guard of which the audit log says nothing: those that an API server was
	// answering when it was ended.
	unlogged int64
}

func (v verdicts) total() int64 {
	total := int64(0)
	for _, count := range v.denials {
		total += count
	}
	return total
}

func (l log) read(t *testing.T) verdicts {
	t.Helper()
	file, err := os.Open(harness.Of(t).Cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(l.offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	result := verdicts{denials: map[string]int64{}}
	for event, err := range apilog.Events(file) {
		if err != nil {
			t.Fatal(err)
		}
		result.take(t, event)
	}
	return result
}

func (v *verdicts) take(t *testing.T, event *apilog.Event) {
	t.Helper()
	denied := false
	for _, decision := range event.Decisions {
		if decision.Decision != "deny" || event.DryRun {
			continue
		}
		if decision.Record == "" {
			t.Errorf("the audit event %s of a denial names no record", event.ID)
		}
		v.denials[decision.Record]++
		denied = true
	}
	if !denied && event.GVR.Resource == "clusterroles" && event.Code >= http.StatusInternalServerError {
		v.failed++
	}
}

// requireCounted compares the records with the audit log: none may count less, and all together no more than failed calls.
func requireCounted(t *testing.T, want verdicts, before, after map[string]int64) {
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
		t.Errorf("the records count %d more than the audit log has denials, which has %d failed calls, and lacks %d at the most",
			surplus, want.failed, want.unlogged)
	}
}

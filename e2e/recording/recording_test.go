// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

func TestEveryDenialIsCountedOnce(t *testing.T) {
	harness.Take(t)
	for name, test := range map[string]struct {
		replicas int
		mode     string
		denials  int64
	}{
		"by one replica":                 {1, "blocking", harness.Full[int64](20_000, 400)},
		"by two replicas":                {2, "blocking", harness.Full[int64](20_000, 2_000)},
		"by two replicas out of a spool": {2, "batch", harness.Full[int64](2_000, 400)},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := startReplicas(t, test.replicas, "--audit-mode="+test.mode)
			before, from := counts(t), startOfLog(t)
			seen := play(t.Context(), t, scenario.Flood{Clients: 16, Users: 200, Max: test.denials})
			awaitStored(t, replicas)
			if seen.Denied != test.denials {
				t.Errorf("the clients saw %d denials, want %d; a write that failed got %s", seen.Denied, test.denials, seen.Failure)
			}
			want := from.read(t)
			if want.total() != test.denials || want.failed > 0 {
				t.Errorf("the audit log has %d denials and %d failed calls, want %d and none", want.total(), want.failed, test.denials)
			}
			requireCounted(t, want, before, counts(t))
			report.Line(t, "%d denials, %s: each counted once, in %d records", want.total(), name, len(want.denials))
		})
	}
}

func TestNoDenialIsLostWhenGuardsAreKilled(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 2)
	before, from := counts(t), startOfLog(t)
	flood := startFlood(t)
	const kills, denialsPerKill = 6, 100
	for round := range kills {
		flood.awaitMore(denialsPerKill)
		replicas[round%2].kill()
		replicas[round%2].start()
	}
	seen := flood.end()
	awaitStored(t, replicas)
	want := from.read(t)
	requireCounted(t, want, before, counts(t))
	if seen.Denied < kills*denialsPerKill || seen.Denied > want.total() {
		t.Errorf("the clients saw %d denials, and the audit log has %d: want %d or more, and no fewer in the log",
			seen.Denied, want.total(), kills*denialsPerKill)
	}
	// A kill fails the calls in progress: at most one per client.
	if limit := max(want.total()/20, kills*outageClients); want.failed > limit || seen.Failed > limit {
		t.Errorf("%d calls failed in the audit log, and %d for the clients: want at most %d", want.failed, seen.Failed, limit)
	}
	report.Line(t, "guards killed: %d denials all recorded; %d calls failed", want.total(), want.failed)
}

// The guard stores records in the unguarded API server. While that one is stopped, the guard keeps denying, and its records stay in
// the spool.
func TestNoDenialIsLostWhileTheStoreIsDown(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t))
	spooled := func() (count float64) {
		harness.Eventually(t, "the guard serves its metrics", func() (bool, any) {
			var err error
			count, err = replicas[0].guard.Metric(t.Context(), `apigw_guardian_audit_facts_total{safe_in="spool"}`)
			return err == nil, err
		})
		return count
	}
	before := spooled()
	requireOutage(t, replicas, 0, func(*flood) {
		harness.Of(t).Cluster.StopUnguarded()
		time.Sleep(outage())
		harness.Eventually(t, "100 denials are in the spool", func() (bool, any) {
			during := spooled() - before
			return during >= 100, during
		})
		must(t, harness.Of(t).Cluster.StartUnguarded(t.Context()))
	})
}

func TestNoDenialIsLostWhileTheAPIServerIsDown(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	// Each client has one call in progress when the API server ends, which may not log it.
	requireOutage(t, replicas, outageClients, func(*flood) {
		harness.Of(t).Cluster.StopAPIServer()
		time.Sleep(outage())
		must(t, harness.Of(t).Cluster.StartAPIServer(t.Context()))
	})
}

func TestNoDenialIsLostWhileEtcdIsDown(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	requireOutage(t, replicas, 0, func(*flood) {
		harness.Of(t).Cluster.StopEtcd()
		time.Sleep(outage())
		must(t, harness.Of(t).Cluster.StartEtcd(t.Context()))
	})
}

// A guard that is killed during an outage of the store leaves its spool to the next guard.
func TestTheSpoolSurvivesItsGuard(t *testing.T) {
	harness.Take(t)
	for _, mode := range harness.Full([]string{"blocking", "durable", "batch"}, []string{"blocking", "batch"}) {
		t.Run(mode, func(t *testing.T) {
			replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t), "--audit-mode="+mode)
			before, from := counts(t), startOfLog(t)
			harness.Of(t).Cluster.StopUnguarded()
			seen := play(t.Context(), t, scenario.Flood{Clients: 8, Users: 20, Max: 400})
			replicas[0].kill()
			must(t, harness.Of(t).Cluster.StartUnguarded(t.Context()))
			replicas[0].start()
			awaitStored(t, replicas)
			want := from.read(t)
			if want.total() != 400 || seen.Denied != 400 {
				t.Errorf("the audit log has %d denials, and the clients saw %d: want 400", want.total(), seen.Denied)
			}
			requireCounted(t, want, before, counts(t))
		})
	}
}

// outage returns the time that a component is stopped: longer than an attempt to store a record plus the pause after it.
func outage() time.Duration { return harness.Full(30*time.Second, 8*time.Second) }

// outageClients is the number of clients during an outage.
const outageClients = 8

// flood sends forbidden writes by outageClients in the background.
type flood struct {
	t       *testing.T
	denials atomic.Int64
	cancel  context.CancelFunc
	seen    chan scenario.Tally
}

func startFlood(t *testing.T) *flood {
	t.Helper()
	f := &flood{t: t, seen: make(chan scenario.Tally, 1)}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(t.Context())
	go func() { f.seen <- play(ctx, t, scenario.Flood{Clients: outageClients, Users: 20, Denials: &f.denials}) }()
	return f
}

// awaitMore waits until the clients have seen count more denials.
func (f *flood) awaitMore(count int64) {
	f.t.Helper()
	before := f.denials.Load()
	harness.Eventually(f.t, fmt.Sprintf("%d more writes are denied", count), func() (bool, any) {
		more := f.denials.Load() - before
		return more >= count, more
	})
}

// end stops the clients and returns their tally.
func (f *flood) end() scenario.Tally {
	f.cancel()
	return <-f.seen
}

// requireOutage fails the test unless the records count every denial in the audit log before, during and after an outage.
// unlogged is the number of calls that the audit log may lack.
func requireOutage(t *testing.T, replicas []*replica, unlogged int64, outage func(*flood)) {
	t.Helper()
	before, from := counts(t), startOfLog(t)
	flood := startFlood(t)
	flood.awaitMore(outageClients)
	outage(flood)
	flood.awaitMore(outageClients)
	flood.end()
	awaitStored(t, replicas)
	want := from.read(t)
	want.unlogged = unlogged
	requireCounted(t, want, before, counts(t))
	if limit := int64(2*outageClients) - unlogged; want.total() < limit {
		t.Errorf("the audit log has %d denials, want %d or more", want.total(), limit)
	}
	report.Line(t, "%s: %d denials all recorded; %d calls failed", t.Name(), want.total(), want.failed)
}

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
		"by one replica":                 {1, "blocking", harness.Full[int64](20_000, 2_000)},
		"by two replicas":                {2, "blocking", harness.Full[int64](20_000, 2_000)},
		"by two replicas out of a spool": {2, "batch", harness.Full[int64](2_000, 600)},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := startReplicas(t, test.replicas, "--audit-mode="+test.mode)
			before, from := counts(t), startOfLog(t)
			seen := play(t.Context(), t, scenario.Flood{Clients: 32, Users: 200, Most: test.denials})
			awaitStored(t, replicas)
			if seen.Denied != test.denials {
				t.Errorf("the clients saw %d denials, want %d", seen.Denied, test.denials)
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

// A guard that is killed is row R5 of the targets.
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
	// A kill fails the calls that the guard is answering, one per client at most.
	if most := max(want.total()/20, kills*outageClients); want.failed > most || seen.Failed > most {
		t.Errorf("%d calls failed in the audit log, and %d for the clients: want %d at most", want.failed, seen.Failed, most)
	}
	report.Line(t, "guards killed: %d denials all recorded; %d calls failed", want.total(), want.failed)
}

// The guard stores its records in another API server than the one that asks it: while that one is down, denials go on, and
// wait in the spool.
func TestNoDenialIsLostWhileTheStoreIsDown(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t))
	spooled := func() (count float64) {
		harness.Eventually(t, "the guard answers with its metrics", func() (bool, any) {
			var err error
			count, err = replicas[0].guard.Metric(t.Context(), `apigw_guardian_audit_facts_total{safe_in="spool"}`)
			return err == nil, err
		})
		return count
	}
	before := spooled()
	requireOutage(t, replicas, 0, func() {
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
	// Each client has one call under way when the API server ends, which then cannot log it any more.
	requireOutage(t, replicas, outageClients, func() {
		harness.Of(t).Cluster.StopAPIServer()
		time.Sleep(outage())
		must(t, harness.Of(t).Cluster.StartAPIServer(t.Context()))
	})
}

func TestNoDenialIsLostWhileEtcdIsDown(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	requireOutage(t, replicas, 0, func() {
		harness.Of(t).Cluster.StopEtcd()
		time.Sleep(outage())
		must(t, harness.Of(t).Cluster.StartEtcd(t.Context()))
	})
}

// A guard that dies while the store is down leaves its spool to the next one.
func TestTheSpoolOutlivesItsGuard(t *testing.T) {
	harness.Take(t)
	for _, mode := range []string{"blocking", "batch"} {
		t.Run(mode, func(t *testing.T) {
			replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t), "--audit-mode="+mode)
			before, from := counts(t), startOfLog(t)
			harness.Of(t).Cluster.StopUnguarded()
			seen := play(t.Context(), t, scenario.Flood{Clients: 8, Users: 20, Most: 400})
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

// outage is how long a component is down: longer than an attempt to store a record, and than the pause before the next one.
func outage() time.Duration { return harness.Full(30*time.Second, 8*time.Second) }

// outageClients is how many clients go on meanwhile.
const outageClients = 8

// flood is forbidden writes by outageClients, in the background.
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

// awaitMore returns once the clients have seen so many more denials.
func (f *flood) awaitMore(count int64) {
	f.t.Helper()
	before := f.denials.Load()
	harness.Eventually(f.t, fmt.Sprintf("%d more writes are denied", count), func() (bool, any) {
		more := f.denials.Load() - before
		return more >= count, more
	})
}

// end stops the clients and returns what they saw.
func (f *flood) end() scenario.Tally {
	f.cancel()
	return <-f.seen
}

// requireOutage wants every denial counted that the audit log has, from before an outage until after it. unlogged is how many
// calls the audit log may lack.
func requireOutage(t *testing.T, replicas []*replica, unlogged int64, outage func()) {
	t.Helper()
	before, from := counts(t), startOfLog(t)
	flood := startFlood(t)
	flood.awaitMore(outageClients)
	outage()
	flood.awaitMore(outageClients)
	flood.end()
	awaitStored(t, replicas)
	want := from.read(t)
	want.unlogged = unlogged
	requireCounted(t, want, before, counts(t))
	if least := int64(2*outageClients) - unlogged; want.total() < least {
		t.Errorf("the audit log has %d denials, want %d or more", want.total(), least)
	}
	report.Line(t, "%s: %d denials all recorded; %d calls failed", t.Name(), want.total(), want.failed)
}

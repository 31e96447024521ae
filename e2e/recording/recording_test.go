// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
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
		"by two replicas out of a spool": {2, "batch", 2_000},
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
	ctx, cancel := context.WithCancel(t.Context())
	flood := startFlood(ctx, t, outageClients)
	const kills = 6
	for round := range kills {
		time.Sleep(3 * time.Second)
		replicas[round%2].kill()
		replicas[round%2].start()
	}
	cancel()
	seen := <-flood
	awaitStored(t, replicas)
	want := from.read(t)
	requireCounted(t, want, before, counts(t))
	if want.total() < 500 || seen.Denied > want.total() {
		t.Errorf("the audit log has %d denials, and the clients saw %d: want 500 or more, and no fewer than they saw", want.total(), seen.Denied)
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
		if during := spooled() - before; during < 100 {
			t.Errorf("%v denials went to the spool during the outage, want 100 or more", during)
		}
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

// startFlood sends forbidden writes until ctx ends; the channel then gets what the clients saw.
func startFlood(ctx context.Context, t *testing.T, clients int) <-chan scenario.Tally {
	t.Helper()
	done := make(chan scenario.Tally, 1)
	go func() { done <- play(ctx, t, scenario.Flood{Clients: clients, Users: 20}) }()
	return done
}

// requireOutage wants every denial counted that the audit log has, from before an outage until after it. unlogged is how many
// calls the audit log may lack.
func requireOutage(t *testing.T, replicas []*replica, unlogged int64, outage func()) {
	t.Helper()
	before, from := counts(t), startOfLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	flood := startFlood(ctx, t, outageClients)
	time.Sleep(time.Second)
	outage()
	time.Sleep(time.Second)
	cancel()
	seen := <-flood
	awaitStored(t, replicas)
	want := from.read(t)
	want.unlogged = unlogged
	requireCounted(t, want, before, counts(t))
	if least := int64(2 * outageClients); seen.Denied < least || want.total() < least {
		t.Errorf("the audit log has %d denials, and the clients saw %d: want %d or more", want.total(), seen.Denied, least)
	}
	report.Line(t, "%s: %d denials all recorded; %d calls failed", t.Name(), want.total(), want.failed)
}

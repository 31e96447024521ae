// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

func TestEveryDenialIsCountedOnce(t *testing.T) {
	for name, test := range map[string]struct {
		replicas int
		mode     string
		denials  int64
	}{
		"by one replica":                 {1, "blocking", 20_000},
		"by two replicas":                {2, "blocking", 20_000},
		"by two replicas out of a spool": {2, "batch", 2_000},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := startReplicas(t, test.replicas, "--audit-mode="+test.mode)
			before, from := counts(t), startOfLog(t)
			play(t.Context(), t, scenario.Flood{Clients: 32, Users: 200, Most: test.denials})
			awaitStored(t, replicas)
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
	replicas := startReplicas(t, 2)
	before, from := counts(t), startOfLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		play(ctx, t, scenario.Flood{Clients: 8, Users: 20})
	}()
	for round := range 6 {
		time.Sleep(3 * time.Second)
		replicas[round%2].kill()
		replicas[round%2].start()
	}
	cancel()
	<-done
	awaitStored(t, replicas)
	want := from.read(t)
	requireCounted(t, want, before, counts(t))
	report.Line(t, "guards killed: %d denials all recorded; %d calls failed", want.total(), want.failed)
}

// The guard stores its records in another API server than the one that asks it: while that one is down, denials go on, and
// wait in the spool.
func TestNoDenialIsLostWhileTheStoreIsDown(t *testing.T) {
	replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t))
	requireOutage(t, replicas, 0, func() {
		shared.world.Cluster.StopUnguarded()
		time.Sleep(outage)
		must(t, shared.world.Cluster.StartUnguarded(t.Context()))
	})
}

func TestNoDenialIsLostWhileTheAPIServerIsDown(t *testing.T) {
	replicas := startReplicas(t, 1)
	// Each client has one call under way when the API server ends, which then cannot log it any more.
	requireOutage(t, replicas, outageClients, func() {
		shared.world.Cluster.StopAPIServer()
		time.Sleep(outage)
		must(t, shared.world.Cluster.StartAPIServer(t.Context()))
	})
}

func TestNoDenialIsLostWhileEtcdIsDown(t *testing.T) {
	replicas := startReplicas(t, 1)
	requireOutage(t, replicas, 0, func() {
		shared.world.Cluster.StopEtcd()
		time.Sleep(outage)
		must(t, shared.world.Cluster.StartEtcd(t.Context()))
	})
}

// A guard that dies while the store is down leaves its spool to the next one.
func TestTheSpoolOutlivesItsGuard(t *testing.T) {
	for _, mode := range []string{"blocking", "batch"} {
		t.Run(mode, func(t *testing.T) {
			replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t), "--audit-mode="+mode)
			before, from := counts(t), startOfLog(t)
			shared.world.Cluster.StopUnguarded()
			play(t.Context(), t, scenario.Flood{Clients: 8, Users: 20, Most: 400})
			replicas[0].kill()
			must(t, shared.world.Cluster.StartUnguarded(t.Context()))
			replicas[0].start()
			awaitStored(t, replicas)
			want := from.read(t)
			if want.total() != 400 {
				t.Errorf("the audit log has %d denials, want 400", want.total())
			}
			requireCounted(t, want, before, counts(t))
		})
	}
}

// outage is how long a component is down, and outageClients is how many clients go on meanwhile.
const (
	outage        = 30 * time.Second
	outageClients = 8
)

// requireOutage wants every denial counted that the audit log has, from before an outage until after it. unlogged is how many
// calls the audit log may lack.
func requireOutage(t *testing.T, replicas []*replica, unlogged int64, outage func()) {
	t.Helper()
	before, from := counts(t), startOfLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		play(ctx, t, scenario.Flood{Clients: outageClients, Users: 20})
	}()
	time.Sleep(time.Second)
	outage()
	time.Sleep(time.Second)
	cancel()
	<-done
	awaitStored(t, replicas)
	want := from.read(t)
	want.unlogged = unlogged
	requireCounted(t, want, before, counts(t))
	report.Line(t, "%s: %d denials all recorded; %d calls failed", t.Name(), want.total(), want.failed)
}

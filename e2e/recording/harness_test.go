// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package recording proves that no denial is lost, and none counted twice. The judge is the API server's own audit log.
package recording

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Two beds: most tests wait, for the end of an outage or of a dead leader's lease.
func TestMain(m *testing.M) {
	harness.Main(m, 2, func(ctx context.Context, bed *harness.Bed) error {
		if err := errors.Join(bed.Cluster.StartUnguarded(ctx), bed.Cluster.InstallCRDs(ctx)); err != nil {
			return err
		}
		var err error
		bed.World, err = scenario.NewWorld(ctx, bed.Cluster)
		return err
	})
}

// replica is one place in which a guard runs, dies, and runs again: its spool stays.
type replica struct {
	t     *testing.T
	front *testbed.Front
	flags []string
	guard *testbed.Guard
}

// startReplicas starts guards behind one front, and returns once reviews reach them.
func startReplicas(t *testing.T, count int, flags ...string) []*replica {
	t.Helper()
	front, err := testbed.StartFront()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(front.Stop)
	t.Cleanup(func() { harness.RemoveRegistration(t) })
	replicas := make([]*replica, count)
	for i := range replicas {
		replicas[i] = &replica{t: t, front: front, flags: append([]string{
			"--url=" + front.URL(), "--leader-elect", "--spool-dir=" + filepath.Join(t.TempDir(), "spool"),
		}, flags...)}
		replicas[i].start()
		t.Cleanup(replicas[i].stop)
	}
	harness.Eventually(t, "a forbidden write is denied", harness.Denies(t, harness.Of(t).World))
	return replicas
}

// start returns once the guard is ready, which is when it stands behind the front.
func (r *replica) start() {
	bed := harness.Of(r.t)
	guard, err := bed.Cluster.LaunchGuard(bed.Program, r.flags...)
	must(r.t, err)
	r.guard = guard
	harness.AwaitReady(r.t, guard)
	r.front.Add(guard)
}

// kill ends the guard as a node that fails does.
func (r *replica) kill() {
	r.front.Remove(r.guard)
	r.guard.Kill()
}

// stop ends the guard in order: it stores what waits.
func (r *replica) stop() {
	r.front.Remove(r.guard)
	r.guard.Stop()
	harness.ShowLog(r.t, r.guard)
}

// counts returns what the records of the cluster count, by their names.
func counts(t *testing.T) map[string]int64 {
	t.Helper()
	records, err := harness.Records(t).List(t.Context(), audit.Filter{})
	must(t, err)
	result := map[string]int64{}
	for i := range records {
		result[records[i].Name] = records[i].Spec.Count
	}
	return result
}

// awaitStored waits until no guard has anything left to store.
func awaitStored(t *testing.T, replicas []*replica) {
	t.Helper()
	for _, r := range replicas {
		harness.Eventually(t, "all records are stored", func() (bool, any) {
			pending, err := r.guard.Metric(t.Context(), "apigw_guardian_audit_pending_records")
			return err == nil && pending == 0, fmt.Sprintf("%v pending (%v)", pending, err)
		})
	}
}

// unguardedKubeconfig leads to the API server that asks no webhook.
func unguardedKubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, testbed.WriteKubeconfig(path, harness.Of(t).Cluster.UnguardedConfig()))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

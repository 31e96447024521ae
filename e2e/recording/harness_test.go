// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package recording proves that no denial is lost or counted twice. It compares the records with the API server's audit log.
package recording

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Two beds run in parallel, because most tests wait for the end of an outage or of the lease of a killed leader.
func TestMain(m *testing.M) {
	harness.Main(m, 2, harness.WithWorld)
}

// replica runs a guard that may be killed and started again with the same spool.
type replica struct {
	t     *testing.T
	front *testbed.Front
	flags []string
	guard *testbed.Guard
}

// startReplicas starts guards behind one front, and waits until reviews reach them.
func startReplicas(t *testing.T, count int, flags ...string) []*replica {
	t.Helper()
	return startReplicasWith(t, count, func() []string { return flags })
}

// startReplicasWith is startReplicas with flags for each replica.
func startReplicasWith(t *testing.T, count int, flags func() []string) []*replica {
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
		}, flags()...)}
		replicas[i].start()
		t.Cleanup(replicas[i].stop)
	}
	harness.Eventually(t, "a forbidden write is denied", harness.Denies(t, harness.Of(t).World))
	return replicas
}

// start starts the guard, waits until it is ready, and adds it to the front.
func (r *replica) start() {
	bed := harness.Of(r.t)
	guard, err := bed.Cluster.LaunchGuard(bed.Program, r.flags...)
	must(r.t, err)
	r.guard = guard
	harness.AwaitReady(r.t, guard)
	r.front.Add(guard)
}

// kill ends the guard without a shutdown, like a failing node.
func (r *replica) kill() {
	r.front.Remove(r.guard)
	r.guard.Kill()
}

// stop shuts the guard down: it stores its pending records.
func (r *replica) stop() {
	r.front.Remove(r.guard)
	r.guard.Stop()
	harness.ShowLog(r.t, r.guard)
}

// counts returns the counts of the records in the cluster, by name.
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

// awaitStored waits until no guard has a pending record.
func awaitStored(t *testing.T, replicas []*replica) {
	t.Helper()
	for _, r := range replicas {
		harness.Eventually(t, "all records are stored", func() (bool, any) {
			pending, err := r.guard.Metric(t.Context(), "apigw_guardian_audit_pending_records")
			return err == nil && pending == 0, fmt.Sprintf("%v pending (%v)", pending, err)
		})
	}
}

// unguardedKubeconfig returns a kubeconfig for the API server that calls no webhook.
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// A limit on the size of its files has the effect of a full disk: the guard keeps the records in memory, and a metric tells.
func TestADiskThatIsFullFailsNoCall(t *testing.T) {
	harness.Take(t)
	for _, mode := range harness.Full([]string{"durable", "batch"}, []string{"batch"}) {
		t.Run(mode, func(t *testing.T) {
			replicas := startReplicas(t, 1, "--kubeconfig="+unguardedKubeconfig(t), "--audit-mode="+mode)
			before, from := counts(t), startOfLog(t)
			harness.Of(t).Cluster.StopUnguarded()
			must(t, unix.Prlimit(replicas[0].guard.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4 << 10, Max: unix.RLIM_INFINITY}, nil))
			seen := play(t.Context(), t, scenario.Flood{Clients: 8, Users: 20, Max: 200})
			inMemory, err := replicas[0].guard.Metric(t.Context(), `apigw_guardian_audit_facts_total{safe_in="memory"}`)
			must(t, err)
			must(t, harness.Of(t).Cluster.StartUnguarded(t.Context()))
			awaitStored(t, replicas)
			want := from.read(t)
			if want.total() != 200 || seen.Denied != 200 || inMemory == 0 {
				t.Errorf("%d denials in the audit log, %d seen, %v of them safe in memory only: want 200, 200 and some", want.total(), seen.Denied, inMemory)
			}
			requireCounted(t, want, before, counts(t))
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"context"
	"testing"
	"time"
)

// flood is row P9 of the targets.
func flood() load { return load{clients: 32, users: 200, most: 20_000} }

func TestEveryDenialIsCountedOnce(t *testing.T) {
	for name, test := range map[string]struct {
		replicas int
		mode     string
	}{
		"by one replica":                 {1, "blocking"},
		"by two replicas":                {2, "blocking"},
		"by two replicas out of a spool": {2, "batch"},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := startReplicas(t, test.replicas, "--audit-mode="+test.mode)
			before, from := counts(t), startOfLog(t)
			start := time.Now()
			flood().run(t.Context(), t)
			took := time.Since(start)
			awaitStored(t, replicas)
			want := from.read(t)
			if want.total() != 20_000 || want.failed > 0 {
				t.Errorf("the audit log has %d denials and %d failed calls, want 20000 and none", want.total(), want.failed)
			}
			requireCounted(t, want, before, counts(t))
			t.Logf("%d denials in %v: %.0f/s, in %d records", want.total(), took, float64(want.total())/took.Seconds(), len(want.denials))
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
		load{clients: 8, users: 20}.run(ctx, t)
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
	t.Logf("%d denials, %d failed calls", want.total(), want.failed)
}

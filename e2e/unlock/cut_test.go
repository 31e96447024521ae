// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

const blind = "Unlocks are not honoured now"

// A replica that has not read the unlocks for 10 s honours none.
func TestUnlocksAreHonouredOnlyWhileTheyCanBeRead(t *testing.T) {
	harness.Take(t)
	r := startReplicas(t, 1)[0]
	role := world(t).Role
	unlock := open(t, "alice")
	requireAllowed(t, "alice", change(role))
	cutAt := time.Now()
	r.cut()
	harness.Eventually(t, "the replica denies", func() (bool, any) {
		answer := do(t, "alice", change(role).DryRun())
		return answer.Code == 403, answer.Status().Message
	})
	if after := time.Since(cutAt); after < 8*time.Second || after > 13*time.Second {
		t.Errorf("the replica denied %s after the cut, want about 10 s", after)
	}
	time.Sleep(time.Until(cutAt.Add(harness.Full(30*time.Second, 12*time.Second))))
	if message := requireDenied(t, "alice", change(role)); !strings.Contains(message, "\n"+blind) {
		t.Errorf("the denial does not say why: %s", message)
	}
	r.mend()
	harness.Eventually(t, "the unlock is honoured again", func() (bool, any) {
		answer := do(t, "alice", change(role).DryRun())
		return answer.Code == 200, answer.Status().Message
	})
	requireAllowed(t, "alice", change(role))
	requireRecords(t, unlock, 2)
}

// One replica is cut off from the API server, and the other is restarted: none honours more than it can see.
func TestUnlockNamesTheReplicaThatIsCutOff(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 2)
	a, b := replicas[0], replicas[1]
	role := world(t).Role
	first := open(t, "alice")
	if len(first.Status.Replicas) != 2 {
		t.Errorf("%v have acknowledged it, want two", first.Status.Replicas)
	}
	b.cut()
	cutAt := time.Now()
	a.kill() // every review reaches the one that is cut off
	time.Sleep(time.Until(cutAt.Add(11 * time.Second)))
	if message := requireDenied(t, "alice", change(role)); !strings.Contains(message, "\n"+blind) {
		t.Errorf("the denial does not say why: %s", message)
	}
	killed := a.name
	a.start()
	ran := as(t, "alice", "unlock", "--reason", reason).Require(t, 1, "not every replica of the guard has confirmed it", b.name+" has not seen it")
	if strings.Contains(ran.Output(), a.name) {
		t.Errorf("it names the replica that honours it: %s", ran.Output())
	}
	// The API server keeps its connection to one replica: while that is the one that is cut off, the write is denied.
	b.mend()
	harness.Eventually(t, "both replicas honour the unlocks", func() (bool, any) {
		seen := stored(t, first.Name).Status.Replicas
		answer := do(t, "alice", change(role).DryRun())
		return answer.Code == 200 && seen[a.name] == "Open" && seen[b.name] == "Open", answer.Status().Message
	})
	requireAllowed(t, "alice", change(role))
	// The note of the killed process lasts a minute: until then it may be alive and cut off.
	as(t, "alice", "unlock", "--reason", reason).Require(t, 1, killed+" has not seen it")
}

// The later one of two clocks counts: a wrong clock ends an unlock too early, and never too late.
func TestNoClockProlongsAnUnlock(t *testing.T) {
	harness.Take(t)
	behind := startReplicasAt(t, []time.Duration{-time.Hour})[0]
	end := time.Now().Add(30 * time.Second)
	role := world(t).Role
	requireUnlockWritten(t, "alice", creation("", specUntil("alice", end, "")))
	harness.Eventually(t, "a replica honours it that sees the API server's clock an hour behind", func() (bool, any) {
		answer := do(t, "alice", change(role).DryRun())
		return answer.Code == http.StatusOK, answer.Status().Message
	})
	requireAllowed(t, "alice", change(role))
	behind.stop()
	ahead := startReplicasAt(t, []time.Duration{time.Hour})[0]
	requireDenied(t, "alice", change(role))
	ahead.kill()
	behind.start()
	time.Sleep(time.Until(end))
	requireDenied(t, "alice", change(role))
}

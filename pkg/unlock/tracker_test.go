// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

var errCut = errors.New("connection refused")

// cut makes the API server fail or hang, and mend makes it answer again.
func cut(a *apiServer)  { a.failure = errCut }
func hang(a *apiServer) { a.hangs = "/" }
func mend(a *apiServer) { a.failure, a.hangs = nil, "" }

// run runs the replicas until the returned function is called. It is called at the latest when the test ends.
func run(t *testing.T, replicas ...*replica) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, len(replicas))
	for _, r := range replicas {
		go func() {
			r.Run(ctx, r.stopping)
			done <- struct{}{}
		}()
	}
	synctest.Wait()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range replicas {
			<-done
		}
	}
	t.Cleanup(stop)
	return stop
}

// pass lets time pass, and waits until all that it causes has happened.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *replica) requireSeen(t *testing.T, when string, want bool) {
	t.Helper()
	facts, seen := r.Facts()
	if seen != want || (len(facts.Unlocks) > 0) != want {
		t.Fatalf("%s: seen=%t, %d unlocks; want seen=%t", when, seen, len(facts.Unlocks), want)
	}
}

func TestAReplicaIsBlindTenSecondsAfterItsLastList(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*apiServer){"the API server refuses connections": cut, "the API server hangs": hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := newAPI()
				api.open(t, "unlock-a", time.Hour)
				r := newReplica(t, api, "a")
				r.requireSeen(t, "before the first list", false)
				run(t, r)
				r.requireSeen(t, "after the first list", true)
				pass(5*time.Second + 500*time.Millisecond) // the last list is half a second old
				api.set(fail)
				pass(9*time.Second + 500*time.Millisecond)
				r.requireSeen(t, "10 s after the last list", true)
				pass(time.Millisecond)
				r.requireSeen(t, "more than 10 s after the last list", false)
				pass(30 * time.Second)
				r.requireSeen(t, "much later", false)
				api.set(mend)
				pass(readInterval + readTimeout)
				r.requireSeen(t, "after the API server answers again", true)
			})
		})
	}
}

// A list that is slow is as old as its beginning.
func TestTheAgeOfAListCountsFromItsBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.open(t, "unlock-a", time.Hour)
		r := newReplica(t, api, "a")
		api.delay = time.Second
		start := time.Now()
		if err := r.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(maxAge - time.Since(start))
		r.requireSeen(t, "at 10 s", true)
		pass(1)
		r.requireSeen(t, "after 10 s", false)
	})
}

func TestFactsHaveTheLaterTime(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ offset, want time.Duration }{
		"the clock of the node is an hour slow":    {time.Hour, time.Hour},
		"the clock of the node is right":           {0, 0},
		"the clock of the node is an hour fast":    {-time.Hour, 0},
		"the clock of the node is a second slow":   {time.Second, time.Second},
		"the clock of the node is ten years slow":  {87600 * time.Hour, 87600 * time.Hour},
		"the clock of the node is ten years ahead": {-87600 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := newAPI()
				api.offset = test.offset
				r := newReplica(t, api, "a")
				run(t, r)
				api.set(cut)
				for range 3 { // the difference stays while the API server does not answer
					facts, _ := r.Facts()
					if got := time.Until(facts.Now.Time); got != test.want {
						t.Errorf("the time is %s ahead of the node, want %s", got, test.want)
					}
					if got := time.Until(r.clock.Server()); got != test.offset {
						t.Errorf("the time of the API server is %s ahead of the node, want %s", got, test.offset)
					}
					pass(time.Hour)
				}
			})
		})
	}
}

// An Unlock ends by the clock of the API server even if the clock of the node is an hour slow.
func TestAnUnlockEndsAlthoughTheClockOfTheNodeIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.offset = time.Hour
		api.open(t, "unlock-a", 10*time.Minute)
		r := newReplica(t, api, "a")
		run(t, r)
		for _, want := range []v1alpha1.UnlockState{v1alpha1.UnlockOpen, v1alpha1.UnlockExpired} {
			facts, _ := r.Facts()
			if got := r.options.Rules.StateOf(&facts.Unlocks[0], facts.Now); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			pass(10 * time.Minute)
		}
	})
}

func TestEachReplicaAcknowledgesAndOneAnnounces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		a, b := newReplica(t, api, "a"), newReplica(t, api, "b")
		run(t, a, b)
		api.open(t, "unlock-a", time.Minute)
		pass(3 * time.Second)
		requireStatus(t, api, v1alpha1.UnlockOpen, "a", "b")
		late := newReplica(t, api, "late")
		run(t, late)
		pass(3 * time.Second)
		requireStatus(t, api, v1alpha1.UnlockOpen, "a", "b", "late")
		pass(time.Minute)
		requireStatus(t, api, v1alpha1.UnlockExpired, "a", "b", "late")
		api.set(func(a *apiServer) { a.writes = nil })
		run(t, newReplica(t, api, "after the end"))
		pass(10 * time.Second)
		requireStatus(t, api, v1alpha1.UnlockExpired, "a", "b", "late")
		if i := slices.IndexFunc(api.writes, func(w string) bool { return strings.Contains(w, "unlocks") }); i >= 0 {
			t.Errorf("%s although nothing is new", api.writes[i])
		}
		events := slices.Concat(a.announced(), b.announced(), late.announced())
		if diff := cmp.Diff([]string{"UnlockExpired unlock-a", "UnlockOpen unlock-a"}, slices.Sorted(slices.Values(events))); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// requireStatus reads the status of unlock-a.
func requireStatus(t *testing.T, api *apiServer, want v1alpha1.UnlockState, replicas ...string) {
	t.Helper()
	seen := map[string]v1alpha1.UnlockState{}
	for _, replica := range replicas {
		seen[replica] = want
	}
	status := api.unlock(t, "unlock-a").Status
	if diff := cmp.Diff(seen, status.Replicas); diff != "" || status.State != want {
		t.Errorf("state %s, want %s; replicas (-want +got)\n%s", status.State, want, diff)
	}
}

func TestAnUnlockThatIsClosedIsAcknowledgedAndAnnounced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.open(t, "unlock-a", time.Hour)
		r := newReplica(t, api, "a")
		run(t, r)
		c, err := NewClient(api.config(), "guard")
		if err != nil {
			t.Fatal(err)
		}
		if closed, err := c.Close(t.Context(), "unlock-a"); err != nil || !closed.Spec.Closed {
			t.Fatalf("got %+v, %v", closed, err)
		}
		pass(2 * time.Second)
		requireStatus(t, api, v1alpha1.UnlockClosed, "a")
		if diff := cmp.Diff([]string{"UnlockOpen unlock-a", "UnlockClosed unlock-a"}, r.announced()); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

func TestTheFirstUseIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.offset = time.Hour
		api.open(t, "unlock-a", 30*time.Minute)
		a, b := newReplica(t, api, "a"), newReplica(t, api, "b")
		run(t, a, b)
		pass(3 * time.Second)
		if api.unlock(t, "unlock-a").Status.FirstUsed != nil {
			t.Fatal("it is used before its first use")
		}
		for range 3 {
			for _, r := range []*replica{a, b} {
				r.Used("unlock-a")
				r.Used("unlock-that-is-gone")
			}
			pass(3 * time.Second)
		}
		first := api.unlock(t, "unlock-a").Status.FirstUsed
		if first == nil || time.Until(first.Time) < 59*time.Minute {
			t.Errorf("first used at %s, want the time of the API server", first)
		}
		events := slices.DeleteFunc(slices.Concat(a.announced(), b.announced()), func(e string) bool { return !strings.HasPrefix(e, "UnlockUsed") })
		if diff := cmp.Diff([]string{"UnlockUsed unlock-a"}, events); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// A replica that could not announce the first use tries again.
func TestTheFirstUseIsAnnouncedAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.open(t, "unlock-a", time.Hour)
		r := newReplica(t, api, "a")
		run(t, r)
		api.set(cut)
		r.Used("unlock-a")
		pass(5 * time.Second)
		api.set(mend)
		pass(5 * time.Second)
		if !slices.Contains(r.announced(), "UnlockUsed unlock-a") {
			t.Errorf("got the events %v", r.announced())
		}
	})
}

func TestAReplicaKnowsItsUser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.identifies = false
		api.open(t, "unlock-a", time.Hour)
		r := newReplica(t, api, "a")
		run(t, r)
		if facts, seen := r.Facts(); facts.Guard != "" || !seen {
			t.Errorf("got the user %q, seen=%t; want none, and the unlocks", facts.Guard, seen)
		}
		api.set(func(a *apiServer) { a.identifies = true })
		pass(readInterval)
		if facts, _ := r.Facts(); facts.Guard != "guard" {
			t.Errorf("got the user %q", facts.Guard)
		}
	})
}

func TestReplicasLeaveTheirNotes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		stopA := run(t, newReplica(t, api, "a"))
		stopB := run(t, newReplica(t, api, "b"))
		requireNotes(t, api, "at the start", "a", "b")
		stopB()
		requireNotes(t, api, "after the end of b", "a")
		crashed := newReplica(t, api, "crashed")
		if err := crashed.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(absence - presenceInterval)
		requireNotes(t, api, "before the note of a crashed replica is too old", "a", "crashed")
		pass(4 * presenceInterval)
		requireNotes(t, api, "after the note of a crashed replica is too old", "a")
		stopA()
		requireNotes(t, api, "after the end of all")
	})
}

// `uninstall` removes the ConfigMap while a replica may still drain.
func TestOnlyAReplicaThatIsToStayMakesTheNotesAgain(t *testing.T) {
	t.Parallel()
	for stops, want := range map[bool]bool{false: true, true: false} {
		synctest.Test(t, func(t *testing.T) {
			api := newAPI()
			r := newReplica(t, api, "a")
			run(t, r)
			if stops {
				close(r.stopping)
			}
			api.mu.Lock()
			delete(api.objects, notesPath)
			api.mu.Unlock()
			pass(2 * presenceInterval)
			if found := len(api.notes()) > 0; found != want {
				t.Errorf("the replica stops: %t; the notes are there again: %t", stops, found)
			}
		})
	}
}

func requireNotes(t *testing.T, api *apiServer, when string, want ...string) {
	t.Helper()
	if got := api.notes(); !slices.Equal(got, want) {
		t.Errorf("%s: got the notes of %v, want %v", when, got, want)
	}
}

// A node with a clock that is an hour fast must not count as running for an hour, nor take the other replicas for gone.
func TestNotesHaveTheTimeOfTheAPIServer(t *testing.T) {
	t.Parallel()
	for _, offset := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			api := newAPI()
			api.offset = offset
			run(t, newReplica(t, api, "a"))
			at, err := time.Parse(time.RFC3339, text(object(api.objects[notesPath], "data")["a"]))
			if difference := time.Until(at) - offset; err != nil || difference.Abs() > time.Second {
				t.Errorf("the note is of %s (%v), %s off", at, err, difference)
			}
		})
	}
}

func TestRunningReplicas(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	notes := map[string]string{
		"b": "2026-11-28T07:59:59Z", "a": "2026-11-28T08:00:03Z", "a minute old": "2026-11-28T07:59:00Z",
		"nearly a minute old": "2026-11-28T07:59:01Z", "no time": "yesterday", "nothing": "",
	}
	if diff := cmp.Diff([]string{"a", "b", "nearly a minute old"}, running(notes, now.Add(-absence))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCleanUpDeletesWhatEndedBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		api.open(t, "unlock-old", time.Minute)
		api.open(t, "unlock-new", 40*time.Minute)
		api.open(t, "unlock-open", 59*time.Minute)
		r := newReplica(t, api, "a")
		run(t, r)
		pass(45 * time.Minute)
		if err := r.CleanUp(t.Context(), time.Now().Add(-30*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := r.CleanUp(t.Context(), time.Now().Add(30*time.Minute)); err != nil { // no open one, whatever the time
			t.Fatal(err)
		}
		deleted := slices.DeleteFunc(slices.Clone(api.writes), func(w string) bool { return !strings.HasPrefix(w, "DELETE") })
		want := []string{"DELETE " + unlocksPath + "/unlock-old", "DELETE " + unlocksPath + "/unlock-old", "DELETE " + unlocksPath + "/unlock-new"}
		if diff := cmp.Diff(slices.Compact(want), slices.Compact(deleted)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		api.set(cut)
		if err := r.CleanUp(t.Context(), time.Now().Add(30*time.Minute)); !errors.Is(err, errCut) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNotesOfAnEvent(t *testing.T) {
	t.Parallel()
	unlock := &v1alpha1.Unlock{Spec: v1alpha1.UnlockSpec{
		Reservation: "edge", Users: []string{"a", "b"}, Reason: "ticket 4711", ExpiresAt: metav1.NewTime(time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)),
	}}
	unlock.Name = "unlock-a"
	for state, want := range map[v1alpha1.UnlockState]string{
		v1alpha1.UnlockOpen:    "a, b may write to resources of edge until 2026-11-28T08:00:00Z: ticket 4711",
		v1alpha1.UnlockPending: "Unlock unlock-a waits for the approval by a second user.",
		v1alpha1.UnlockExpired: "Unlock unlock-a is over: Expired.",
	} {
		if got := note(unlock, state); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func newTestClient(t *testing.T, api *apiServer) *Client {
	t.Helper()
	c, err := NewClient(api.config(), "guard")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request() v1alpha1.UnlockSpec {
	return v1alpha1.UnlockSpec{Reservation: "apigw-ingress", Reason: "ticket 4711", RequestedBy: "somebody else"}
}

// The clocks of the administrator, of the node and of the API server may differ by an hour: the lifetime does not.
func TestOpenIsHonouredWhateverTheClockOfTheAdministrator(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]time.Duration{"is right": 0, "is an hour slow": time.Hour, "is an hour fast": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := newAPI()
				api.offset = offset
				c := newTestClient(t, api)
				unlock, err := c.Open(t.Context(), request(), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				if lifetime := unlock.Spec.ExpiresAt.Sub(unlock.CreationTimestamp.Time); lifetime != time.Hour || unlock.Spec.RequestedBy != "guard" {
					t.Errorf("%s requests %s, want guard and 1h", unlock.Spec.RequestedBy, lifetime)
				}
			})
		})
	}
}

func TestAwaitReturnsWhenEveryReplicaHonoursIt(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]time.Duration{"with the same clock": 0, "with a slow clock": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api := newAPI()
				api.offset = offset
				run(t, newReplica(t, api, "a"), newReplica(t, api, "b"))
				pass(2 * time.Second)
				c := newTestClient(t, api)
				unlock, err := c.Open(t.Context(), request(), 10*time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				seen, err := c.Await(t.Context(), unlock.Name, v1alpha1.UnlockOpen, v1alpha1.UnlockPending)
				if err != nil || len(seen.Status.Replicas) != 2 || time.Since(start) > 3*time.Second {
					t.Errorf("got %+v, %v after %s", seen, err, time.Since(start))
				}
			})
		})
	}
}

func TestAwaitNamesTheReplicasThatDoNotHonourIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		notes map[string]any
		seen  map[string]any
		want  string
	}{
		"no replica is running":        {nil, nil, "no replica is running"},
		"all notes are old":            {map[string]any{"a": "2000-01-01T00:00:00Z"}, nil, "no replica is running"},
		"one has not seen it":          {map[string]any{"a": "", "b": ""}, map[string]any{"a": "Open"}, "b has not seen it"},
		"one sees it as closed":        {map[string]any{"a": "", "b": ""}, map[string]any{"a": "Closed", "b": "Open"}, "a sees it as Closed"},
		"one sees it as expired":       {map[string]any{"a": ""}, map[string]any{"a": "Expired"}, "a sees it as Expired"},
		"two do not honour it":         {map[string]any{"a": "", "b": "", "c": ""}, map[string]any{"a": "Pending", "b": "Open"}, "a sees it as Pending, c has not seen it"},
		"one that is gone has seen it": {map[string]any{"a": ""}, map[string]any{"gone": "Open"}, "a has not seen it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pass(time.Hour)
				api := newAPI()
				api.open(t, "unlock-a", time.Hour)
				api.set(func(a *apiServer) {
					object(a.objects[unlocksPath+"/unlock-a"], "status")["replicas"] = test.seen
					for replica, note := range test.notes {
						if note == "" {
							test.notes[replica] = time.Now().Add(time.Minute).UTC().Format(time.RFC3339)
						}
					}
					if test.notes != nil {
						a.store(notesPath, map[string]any{"data": test.notes})
					}
				})
				start := time.Now()
				seen, err := newTestClient(t, api).Await(t.Context(), "unlock-a", v1alpha1.UnlockOpen)
				if !errors.Is(err, ErrUnconfirmed) || !strings.HasSuffix(err.Error(), "after 10s: "+test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				if seen == nil || time.Since(start) > patience+time.Second {
					t.Errorf("got %v after %s", seen, time.Since(start))
				}
			})
		})
	}
}

func TestAwaitEndsWithItsContextAndWithTheUnlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		c := newTestClient(t, api)
		if _, err := c.Await(t.Context(), "unlock-a", v1alpha1.UnlockOpen); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "kubectl get unlocks") {
			t.Errorf("got %v", err)
		}
		api.open(t, "unlock-a", time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Await(ctx, "unlock-a", v1alpha1.UnlockOpen); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnconfirmed) {
			t.Errorf("got %v", err)
		}
		api.set(cut)
		if _, err := c.Await(t.Context(), "unlock-a", v1alpha1.UnlockOpen); !errors.Is(err, errCut) {
			t.Errorf("got %v", err)
		}
	})
}

func TestApproveAndListAreOfTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		c := newTestClient(t, api)
		api.open(t, "unlock-b", time.Hour)
		pass(time.Minute)
		api.open(t, "unlock-a", time.Hour)
		if approved, err := c.Approve(t.Context(), "unlock-b"); err != nil || approved.Status.ApprovedBy != "guard" {
			t.Errorf("got %+v, %v", approved, err)
		}
		if diff := cmp.Diff([]string{"PATCH " + unlocksPath + "/unlock-b/status"}, api.writes); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		list, err := c.List(t.Context())
		if err != nil || len(list) != 2 || list[0].Name != "unlock-b" || list[1].Name != "unlock-a" {
			t.Errorf("got %v, %v", list, err)
		}
		for what, err := range map[string]error{
			"approve": last(c.Approve(t.Context(), "absent")), "close": last(c.Close(t.Context(), "absent")),
		} {
			if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), what+` unlock "absent": not found`) {
				t.Errorf("got %v", err)
			}
		}
		api.identifies = false
		if _, err := c.Open(t.Context(), request(), time.Hour); !apierrors.IsForbidden(err) {
			t.Errorf("got %v", err)
		}
	})
}

func last(_ *v1alpha1.Unlock, err error) error { return err }

// A request that the end of the time cuts off must not hide which replica is missing.
func TestAwaitNamesTheReplicasAlthoughItsLastRequestHangs(t *testing.T) {
	t.Parallel()
	for _, hangs := range []string{"unlocks", "configmaps"} {
		synctest.Test(t, func(t *testing.T) {
			pass(time.Hour)
			api := newAPI()
			api.open(t, "unlock-a", time.Hour)
			now := time.Now().UTC().Format(time.RFC3339)
			api.set(func(a *apiServer) { a.store(notesPath, map[string]any{"data": map[string]any{"a": now}}) })
			go func() {
				time.Sleep(5 * time.Second)
				api.set(func(a *apiServer) { a.hangs = hangs })
			}()
			_, err := newTestClient(t, api).Await(t.Context(), "unlock-a", v1alpha1.UnlockOpen)
			if !errors.Is(err, ErrUnconfirmed) || !strings.HasSuffix(err.Error(), "a has not seen it") {
				t.Errorf("%s: got %v", hangs, err)
			}
		})
	}
}

// For an administrator whose clock is an hour fast, the notes of running replicas are not old.
func TestAwaitReadsNotesByTheTimeOfTheAPIServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pass(2 * time.Hour)
		api := newAPI()
		api.offset = -time.Hour
		api.open(t, "unlock-a", time.Hour)
		now := time.Now().Add(api.offset).UTC().Format(time.RFC3339)
		api.set(func(a *apiServer) {
			object(a.objects[unlocksPath+"/unlock-a"], "status")["replicas"] = map[string]any{"a": "Open"}
			a.store(notesPath, map[string]any{"data": map[string]any{"a": now}})
		})
		if _, err := newTestClient(t, api).Await(t.Context(), "unlock-a", v1alpha1.UnlockOpen); err != nil {
			t.Error(err)
		}
	})
}

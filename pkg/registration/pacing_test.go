// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// A write that the API server stores with changes is no repair: the replica says so once, and tries again at growing pauses.
func TestAWriteThatIsRewrittenIsNoRepair(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rewrite   func(*configuration)
		path      string
		isPartial bool
	}{
		"a namespace selector": {func(c *configuration) { c.Webhooks[2].NamespaceSelector = selector() }, "webhooks[2].namespaceSelector", true},
		"an object selector":   {func(c *configuration) { c.Webhooks[2].ObjectSelector = selector() }, "webhooks[2].objectSelector", true},
		"failures ignored": {func(c *configuration) {
			c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore)
		}, "webhooks[0].failurePolicy", true},
		"a condition changed": {func(c *configuration) {
			c.Webhooks[2].MatchConditions[0].Expression = "false"
		}, "webhooks[2].matchConditions[0].expression", true},
		"fewer operations": {func(c *configuration) {
			c.Webhooks[0].Rules[0].Operations = c.Webhooks[0].Rules[0].Operations[1:]
		}, "webhooks[0].rules[0].operations", true},
		"another CA bundle":    {func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = []byte("x") }, "webhooks[0].clientConfig.caBundle", true},
		"a shorter timeout":    {func(c *configuration) { c.Webhooks[0].TimeoutSeconds = new(int32(1)) }, "webhooks[0].timeoutSeconds", false},
		"an owner":             {func(c *configuration) { c.OwnerReferences[0].UID = "2" }, "metadata.ownerReferences[0].uid", false},
		"annotations stripped": {func(c *configuration) { c.Annotations = nil }, "metadata.annotations", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var announced []string
				r := newReplica(t, &api{})
				r.options.Announce = func(_, note string) { announced = append(announced, note) }
				if err := r.Keep(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.api.rewrite = test.rewrite
				test.rewrite(r.api.live)
				writesIn(t, r, 10*time.Minute)
				if inPlace, contested := inPlaceOf(r), testutil.ToFloat64(r.contested); inPlace != 0 || contested != 1 {
					t.Errorf("gauges: got %v and %v, want 0 and 1", inPlace, contested)
				}
				if len(announced) != 1 || !strings.Contains(announced[0], test.path) || strings.Contains(announced[0], Partial) != test.isPartial {
					t.Errorf("announced: %q", announced)
				}
				if len(r.reports) != 1 || r.reports[0].Problem != announced[0] || len(r.reports[0].Changed) == 0 {
					t.Errorf("reports: %+v", r.reports)
				}
				if r.api.writes > 10+int(10*time.Minute/lastPause) {
					t.Errorf("%d writes in 10 minutes", r.api.writes)
				}
				r.api.rewrite = nil
				writesIn(t, r, 2*lasting)
				if !asWanted(r.api.live, r.want) || r.api.live.Annotations[guardian.RegistrationProblemAnnotation] != "" ||
					inPlaceOf(r) != 1 || testutil.ToFloat64(r.contested) != 0 {
					t.Errorf("not in place after the rewriting has ended: %v", r.api.live)
				}
			})
		})
	}
}

// writesIn keeps the webhook configuration as a controller does, for that long.
func writesIn(t *testing.T, r *replica, length time.Duration) {
	t.Helper()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Second) {
		keep(t, r)
	}
}

// keep lets the replica look once. It returns the pause that it makes instead of a repair.
func keep(t *testing.T, r *replica) time.Duration {
	t.Helper()
	var paused *pausedError
	if err := r.Keep(t.Context()); errors.As(err, &paused) {
		return paused.left
	} else if err != nil {
		t.Fatal(err)
	}
	return 0
}

// Another client that undoes each repair at once gets a few repairs at once, and then one in each pause. No edit lasts for longer.
func TestRepairsAreNotFoughtWriteForWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, &api{})
		keep(t, r)
		r.api.writes = 0
		began := time.Now()
		for range 100 {
			r.api.live.Webhooks[0].NamespaceSelector = selector()
			for pause := keep(t, r); pause > 0; pause = keep(t, r) {
				if pause > editPause {
					t.Fatalf("an edit lasts for %s, want at most %s", pause, editPause)
				}
				time.Sleep(pause)
			}
			if r.api.writes == freeRepairs && time.Since(began) > 0 {
				t.Errorf("the first %d repairs took %s, want no pause", freeRepairs, time.Since(began))
			}
		}
		// The repair after the one that notes the problem has no pause either: it writes the note.
		if want := (100 - freeRepairs - 2) * editPause; time.Since(began) != want {
			t.Errorf("100 repairs took %s, want %s", time.Since(began), want)
		}
		if r.api.live.Annotations[guardian.RegistrationProblemAnnotation] == "" {
			t.Error("the webhook configuration does not say that it is contested")
		}
		writesIn(t, r, 2*lasting) // the other client has gone
		if !asWanted(r.api.live, r.want) || testutil.ToFloat64(r.contested) != 0 {
			t.Errorf("not in place: %v", r.api.live)
		}
	})
}

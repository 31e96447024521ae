// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// state is a condition's type, status and reason.
type state struct {
	kind   string
	status metav1.ConditionStatus
	reason string
}

func stateOf(condition metav1.Condition) state {
	return state{condition.Type, condition.Status, condition.Reason}
}

func newPublisher(t *testing.T, edit func(*Options)) *Publisher {
	t.Helper()
	w, _ := newWatcher(t, edit)
	return &Publisher{Watcher: w, Prover: &Prover{}}
}

func TestProtectedIsTheWorstOfTheKinds(t *testing.T) {
	t.Parallel()
	p := newPublisher(t, func(*Options) {})
	shop := p.Watcher.options.Cluster.Set.Reservation("shop")
	kinds := verify.PerKind(p.Watcher.options.Cluster.Set)
	proof := func(i int, state verify.State, cause verify.Cause) verify.Protection {
		return verify.Protection{Resource: kinds[i].String(), State: state, Cause: cause}
	}
	for name, test := range map[string]struct {
		results []verify.Protection
		status  metav1.ConditionStatus
		reason  string
	}{
		"not tried yet": {nil, metav1.ConditionUnknown, "NotProved"},
		"denied":        {[]verify.Protection{proof(0, verify.Protected, "")}, metav1.ConditionTrue, "Protected"},
		"one passes": {
			[]verify.Protection{proof(0, verify.Locked, verify.NoAnswer), proof(1, verify.Open, verify.Rewritten)},
			metav1.ConditionFalse, "Rewritten",
		},
		"one cannot be tried": {
			[]verify.Protection{proof(0, verify.Protected, ""), proof(1, verify.Unknown, verify.NotTried)}, metav1.ConditionUnknown, "NotTried",
		},
		"the guard observes":        {[]verify.Protection{proof(0, verify.Observed, verify.Allowed)}, metav1.ConditionFalse, "Observed"},
		"a kind of another one":     {[]verify.Protection{{Resource: "widgets.example.com/x", State: verify.Open}}, metav1.ConditionUnknown, "NotProved"},
		"no webhook configuration":  {[]verify.Protection{proof(0, verify.Open, verify.NotRegistered)}, metav1.ConditionFalse, "NotRegistered"},
		"a state without its cause": {[]verify.Protection{proof(0, verify.Open, "")}, metav1.ConditionFalse, "Open"},
	} {
		p.Prover.latest.Store(&test.results)
		if got := p.protected(shop); got.Status != test.status || got.Reason != test.reason {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestAuthorizedAndInSync(t *testing.T) {
	t.Parallel()
	const authorized, inSync = v1alpha1.ConditionAuthorized, v1alpha1.ConditionInSync
	for name, test := range map[string]struct {
		mode    Mode
		edit    func(*Watcher)
		retired bool
		want    [2]state
	}{
		"not looked yet": {mode: Heal, edit: func(w *Watcher) { w.latest.Store(nil) }, want: [2]state{
			{authorized, metav1.ConditionUnknown, "NotLooked"}, {inSync, metav1.ConditionUnknown, "NotLooked"},
		}},
		"not watched": {mode: Off, want: [2]state{
			{authorized, metav1.ConditionUnknown, "NotWatched"}, {inSync, metav1.ConditionUnknown, "NotWatched"},
		}},
		"retired": {mode: Heal, retired: true, want: [2]state{
			{authorized, metav1.ConditionFalse, "Retired"}, {inSync, metav1.ConditionTrue, "Retired"},
		}},
		"one differs": {mode: Heal, want: [2]state{
			{authorized, metav1.ConditionTrue, "Present"}, {inSync, metav1.ConditionFalse, audit.Differs},
		}},
		"all as their manifests say": {mode: Heal, edit: func(w *Watcher) {
			for _, s := range w.subjects {
				s.finding = nil
			}
			w.latest.Store(w.report())
		}, want: [2]state{{authorized, metav1.ConditionTrue, "Present"}, {inSync, metav1.ConditionTrue, "AsManifest"}}},
		"one absent": {mode: Heal, edit: func(w *Watcher) {
			for _, s := range w.subjects {
				if s.finding != nil {
					s.finding.Paths = nil
				}
			}
			w.latest.Store(w.report())
		}, want: [2]state{{authorized, metav1.ConditionFalse, audit.Absent}, {inSync, metav1.ConditionFalse, audit.Differs}}},
	} {
		p := newPublisher(t, func(o *Options) { o.Mode = test.mode })
		p.Watcher.latest.Store(p.Watcher.report())
		if test.edit != nil {
			test.edit(p.Watcher)
		}
		got := p.synced(p.Watcher.options.Cluster.Set.Reservation("shop"), test.retired)
		if have := [2]state{stateOf(got[0]), stateOf(got[1])}; have != test.want {
			t.Errorf("%s: got %v, want %v", name, have, test.want)
		}
	}
}

func TestPrivateNetworkReady(t *testing.T) {
	t.Parallel()
	for status, want := range map[authorize.Status]metav1.ConditionStatus{
		authorize.Pass: metav1.ConditionTrue, authorize.Fail: metav1.ConditionFalse, authorize.Unknown: metav1.ConditionUnknown,
	} {
		got := networkReady(authorize.Check{Status: status, Message: "m", Remedy: "r"}, nil)
		if got.Status != want || got.Reason != string(status) || got.Message != "m. r" {
			t.Errorf("%s: got %+v", status, got)
		}
	}
}

func TestDenialsCountForTheirReservation(t *testing.T) {
	t.Parallel()
	_, role := newWatcher(t, func(*Options) {})
	p := newPublisher(t, func(o *Options) { o.Records = recordOf(role, v1alpha1.Denied, "UPDATE", time.Minute) })
	set := p.Watcher.options.Cluster.Set
	if got := reservationOf(set, role.object()); got != role.Reservation {
		t.Errorf("got %q", got)
	}
	if got := reservationOf(set, v1alpha1.ObjectReference{Resource: "unlocks", Name: "u"}); got != set.Reservations()[0].Name {
		t.Errorf("got %q for another object", got)
	}
}

// The next proof starts at once, so that a loss is shown before the interval is over; not while the guard has not registered yet.
func TestALossHurriesTheProof(t *testing.T) {
	t.Parallel()
	lost := 0
	l := &Ledger{Lost: func() { lost++ }}
	l.find(nil)
	if lost != 0 {
		t.Error("the guard had not decided yet")
	}
	l.decided, l.defect = time.Now(), ""
	l.find(nil)
	l.find(nil)
	if lost != 1 {
		t.Errorf("told %d times", lost)
	}
	p := NewProver(ProverOptions{Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	p.Hurry()
	p.Hurry() // never blocks
	if len(p.hurry) != 1 {
		t.Errorf("%d rounds wait", len(p.hurry))
	}
}

// Tencent Cloud's answer counts for more than the signs in the cluster.
func TestPrivateNetworkReadyByTencentCloud(t *testing.T) {
	t.Parallel()
	for reason, want := range map[tke.Reason]metav1.ConditionStatus{
		tke.Enabled: metav1.ConditionTrue, tke.Disabled: metav1.ConditionFalse, tke.Throttled: metav1.ConditionUnknown, "": metav1.ConditionUnknown,
	} {
		noted := &Network{Answer: tke.Answer{Reason: reason, Message: "m", Remedy: "r"}}
		got := networkReady(authorize.Check{Status: authorize.Pass}, noted)
		if got.Status != want || got.Reason == "" || got.Message != "m. r" {
			t.Errorf("%q: got %+v, want %s", reason, got, want)
		}
	}
}

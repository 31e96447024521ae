// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

type unlocks []v1alpha1.Unlock

func (u unlocks) List(context.Context) ([]v1alpha1.Unlock, error) { return u, nil }

type records []v1alpha1.AuditRecord

func (r records) List(_ context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error) {
	return slices.DeleteFunc(slices.Clone(r), func(record v1alpha1.AuditRecord) bool { return !filter.Match(&record) }), nil
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) List(context.Context) ([]v1alpha1.Unlock, error) { return nil, errBroken }

type brokenRecords struct{}

func (brokenRecords) List(context.Context, audit.Filter) ([]v1alpha1.AuditRecord, error) {
	return nil, errBroken
}

// newWatcher returns one that knows the shop's resources, of which each is authorized, and the role has drift since a minute ago.
func newWatcher(t *testing.T, edit func(*Options)) (*Watcher, *subject) {
	t.Helper()
	options := Options{
		Cluster: live.Cluster{Set: shop.Set(t, shop.Reservation)}, Mode: Heal, Rules: policy.UnlockRules{MaxDuration: metav1.Duration{Duration: time.Hour}},
		Unlocks: unlocks(nil), Records: records(nil), Record: func(context.Context, audit.Event) {},
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	}
	edit(&options)
	w := New(options)
	var role *subject
	for _, resource := range options.Cluster.Set.Resources() {
		s := &subject{Resource: resource, seen: Seen{UID: "u", InSync: true}}
		w.subjects = append(w.subjects, s)
		if resource.Kind == "ClusterRole" {
			role = s
		}
	}
	role.finding = &Finding{
		Resource: role.String(), Object: role.object().String(), Paths: []string{"rules"}, Found: metav1.Now(),
		Writer: live.Writer{Manager: "editor", At: metav1.NewTime(time.Now().Add(-time.Minute))},
	}
	return w, role
}

func unlockOf(role *subject, edit func(*v1alpha1.Unlock)) unlocks {
	now := time.Now()
	u := v1alpha1.Unlock{Spec: v1alpha1.UnlockSpec{
		Reservation: role.Reservation, Reason: "a test changes it", RequestedBy: "ann", ExpiresAt: metav1.NewTime(now.Add(time.Minute)),
	}}
	u.Name, u.CreationTimestamp = "u1", metav1.NewTime(now.Add(-time.Minute))
	edit(&u)
	return unlocks{u}
}

func recordOf(role *subject, outcome v1alpha1.Outcome, operation admissionv1.Operation, ago time.Duration, changed ...string) records {
	if len(changed) == 0 {
		changed = []string{"rules"}
	}
	event := audit.Event{
		Time: time.Now().Add(-ago), Outcome: outcome, Operation: operation, Object: role.object(), Unlock: "u1", Changed: changed,
	}
	return records{*event.Record("r", 1)}
}

func TestHold(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options func(*Options, *subject)
		edit    func(*Watcher, *subject)
		held    string
		fails   bool
	}{
		"nothing holds":   {},
		"it only reports": {options: func(o *Options, _ *subject) { o.Mode = ReportOnly }, held: "only reports"},
		"an unlock is open": {options: func(o *Options, s *subject) {
			o.Unlocks = unlockOf(s, func(*v1alpha1.Unlock) {})
		}, held: "u1 is open"},
		"an unlock of another resource": {options: func(o *Options, s *subject) {
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{"secrets/a/b"} })
		}},
		"an unlock has just expired": {options: func(o *Options, s *subject) {
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = metav1.NewTime(time.Now().Add(-time.Second)) })
		}, held: "just ended"},
		"an unlock was just closed": {options: func(o *Options, s *subject) {
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) {
				u.Spec.Closed, u.ManagedFields = true, []metav1.ManagedFieldsEntry{{Time: new(metav1.Now())}}
			})
		}, held: "just ended"},
		"an unlock ended long ago": {options: func(o *Options, s *subject) {
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) {
				u.Spec.ExpiresAt = metav1.NewTime(time.Now().Add(-time.Minute + time.Second))
			})
		}},
		"the write was under an unlock": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
		}, held: "under unlock u1"},
		"the write was exempted": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Exempted, admissionv1.Update, time.Minute)
		}, held: "exemption"},
		"another write came after that under the unlock": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 2*time.Minute)
		}},
		"a removed field, which only an earlier writer of others explains": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 0)
		}, edit: func(_ *Watcher, s *subject) {
			s.finding.Paths, s.finding.IsGuess = []string{"metadata.labels[a]"}, true
		}},
		"a removed field, which the unlock allowed to remove": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 2*time.Minute)
		}, edit: func(_ *Watcher, s *subject) { s.finding.IsGuess = true }, held: "under unlock u1"},
		"a field that no writer owns, next to one that an unlock allowed": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 0)
		}, edit: func(_ *Watcher, s *subject) { s.finding.Paths = []string{"metadata.labels[a]", "rules"} }},
		"another label than the one that an unlock allowed": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 0, "metadata.labels[b]")
		}, edit: func(_ *Watcher, s *subject) { s.finding.Paths = []string{"metadata.labels[a]"} }},
		"two writes under an unlock changed a field each": {options: func(o *Options, s *subject) {
			o.Records = append(recordOf(s, v1alpha1.Unlocked, admissionv1.Update, 2*time.Minute, "metadata.labels[a]"),
				recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute, "rules[7].verbs")...)
		}, edit: func(_ *Watcher, s *subject) { s.finding.Paths = []string{"metadata.labels[a]", "rules[2].verbs"} }, held: "under unlock u1"},
		"the record is an imported one": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
			o.Records.(records)[0].Spec.Source = v1alpha1.SourceImport
		}},
		"the unlock created the object": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Create, time.Minute)
			o.Records.(records)[0].Spec.Changed = nil
		}, held: "under unlock u1"},
		"the unlock that allowed it restores at its end": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) {
				u.Spec.OnEnd, u.Spec.ExpiresAt = v1alpha1.OnEndRestore, metav1.NewTime(time.Now().Add(-time.Second))
			})
		}},
		"the unlock that restores at its end is open": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) { u.Spec.OnEnd = v1alpha1.OnEndRestore })
		}, held: "u1 is open"},
		"another unlock restores at its end": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) {
				u.Name, u.Spec.OnEnd, u.Spec.ExpiresAt = "u0", v1alpha1.OnEndRestore, metav1.NewTime(time.Now().Add(-time.Second))
			})
		}, held: "under unlock u1"},
		"the unlock restores at its end, but the guard only reports": {options: func(o *Options, s *subject) {
			o.Mode = ReportOnly
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Update, time.Minute)
			o.Unlocks = unlockOf(s, func(u *v1alpha1.Unlock) {
				u.Spec.OnEnd, u.Spec.ExpiresAt = v1alpha1.OnEndRestore, metav1.NewTime(time.Now().Add(-time.Second))
			})
		}, held: "only reports"},
		"only a deletion was under an unlock": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Delete, 0)
		}},
		"a denied write says nothing": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Denied, admissionv1.Update, 0)
		}},
		"absent, and the deletion was under an unlock": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Delete, time.Minute)
		}, edit: func(_ *Watcher, s *subject) {
			s.finding.Paths, s.finding.Writer = nil, live.Writer{}
		}, held: "under unlock u1"},
		"absent, and seen after the deletion under an unlock": {options: func(o *Options, s *subject) {
			o.Records = recordOf(s, v1alpha1.Unlocked, admissionv1.Delete, time.Minute)
		}, edit: func(_ *Watcher, s *subject) {
			s.finding.Paths, s.finding.Writer, s.seen.Since = nil, live.Writer{}, metav1.Now()
		}},
		"unlocks cannot be read": {options: func(o *Options, _ *subject) { o.Unlocks = broken{} }, fails: true},
		"records cannot be read": {options: func(o *Options, _ *subject) { o.Records = brokenRecords{} }, fails: true},
		"never authorized":       {edit: func(w *Watcher, _ *subject) { neverAuthorized(w) }, held: "not authorized yet"},
		"never authorized, and another one differs": {
			options: func(o *Options, _ *subject) { o.Mode = Authorize },
			edit:    func(w *Watcher, _ *subject) { neverAuthorized(w) }, held: "not authorized yet",
		},
		"never authorized, and all absent": {
			options: func(o *Options, _ *subject) { o.Mode = Authorize },
			edit: func(w *Watcher, s *subject) {
				neverAuthorized(w)
				s.finding.Paths = nil
			},
		},
		"never authorized, but this program owns fields": {edit: func(w *Watcher, s *subject) {
			neverAuthorized(w)
			s.applied = true
		}},
		"another version has applied it just now": {edit: func(_ *Watcher, s *subject) {
			s.finding.Writer = live.Writer{Manager: guardian.FieldManager, Applied: true, At: metav1.Now()}
		}, held: "another version"},
		"another version has applied it long ago": {edit: func(_ *Watcher, s *subject) {
			s.finding.Writer = live.Writer{Manager: guardian.FieldManager, Applied: true, At: metav1.NewTime(time.Now().Add(-time.Hour))}
		}},
		"three rounds against the same writer": {edit: func(_ *Watcher, s *subject) {
			s.fight.rounds = map[string]int{"editor": maxRounds}
		}, held: `"editor"`},
		"three rounds against another writer": {edit: func(_ *Watcher, s *subject) {
			s.fight.rounds = map[string]int{"other": maxRounds}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, blank := newWatcher(t, func(*Options) {})
			w, s := newWatcher(t, func(o *Options) {
				if test.options != nil {
					test.options(o, blank)
				}
			})
			if test.edit != nil {
				test.edit(w, s)
			}
			_, err := w.hold(t.Context(), s)
			if (err != nil) != test.fails || (s.finding.Held == "") != (test.held == "") || !strings.Contains(s.finding.Held, test.held) {
				t.Errorf("got %q, %v, want %q", s.finding.Held, err, test.held)
			}
		})
	}
}

func neverAuthorized(w *Watcher) {
	for _, s := range w.subjects {
		s.seen, s.applied = Seen{}, false
	}
}

func TestATokenSecretWaitsForItsAccount(t *testing.T) {
	t.Parallel()
	w, role := newWatcher(t, func(*Options) {})
	role.finding = nil
	for _, s := range w.subjects {
		if s.IsTokenSecret() || s.IsServiceAccount() {
			s.finding = &Finding{Resource: s.String(), Object: s.object().String()}
		}
	}
	for _, s := range w.subjects {
		if s.finding == nil {
			continue
		}
		if _, err := w.hold(t.Context(), s); err != nil || (s.finding.Held != "") != s.IsTokenSecret() {
			t.Errorf("%s: held %q, %v", s, s.finding.Held, err)
		}
	}
}

func TestAFightPausesLongerAndIsForgotten(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := fight{}
	if got := f.pause(now); got != 0 {
		t.Errorf("got %s before the first round", got)
	}
	for rounds, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 30: maxPause} {
		f = fight{rounds: map[string]int{"a": rounds}, last: now}
		if got := f.pause(now); got != want {
			t.Errorf("after %d rounds: got %s, want %s", rounds, got, want)
		}
	}
	f.rest(now.Add(time.Minute))
	if len(f.rounds) == 0 {
		t.Error("forgotten after a minute")
	}
	f.rest(now.Add(quiet + time.Second))
	if len(f.rounds) > 0 || f.isOver {
		t.Errorf("got %+v", f)
	}
}

func TestAFindingIsRecordedOnce(t *testing.T) {
	t.Parallel()
	var events []audit.Event
	w, s := newWatcher(t, func(o *Options) {
		o.Record = func(_ context.Context, event audit.Event) { events = append(events, event) }
	})
	w.record(t.Context(), s)
	w.record(t.Context(), s)
	s.fight.isOver, s.finding.Held = true, "stopped"
	w.record(t.Context(), s)
	neverAuthorized(w)
	s.finding.Paths = []string{"other"}
	w.record(t.Context(), s)
	var got []string
	for _, event := range events {
		got = append(got, event.Reason)
	}
	if !slices.Equal(got, []string{audit.Differs, audit.HealStopped}) || !strings.Contains(events[0].Message, `"editor"`) {
		t.Errorf("got %v: %+v", got, events)
	}
}

func TestAGapHoldsWhatWasWrittenInIt(t *testing.T) {
	t.Parallel()
	at := func(second int) metav1.Time {
		return metav1.NewTime(time.Date(2026, 11, 28, 8, 0, second, 0, time.UTC))
	}
	by := func(at metav1.Time, isGuess bool) live.Writer {
		return live.Writer{Manager: "x", At: at, IsGuess: isGuess}
	}
	for name, test := range map[string]struct {
		written live.Writer
		found   metav1.Time
		want    []string
	}{
		"written and found in it":              {by(at(12), false), at(15), []string{"x"}},
		"written in it and found later":        {by(at(19), false), at(40), []string{"x"}},
		"written after it":                     {by(at(25), false), at(26), nil},
		"written before it":                    {by(at(5), false), at(21), nil},
		"found before it":                      {by(at(5), false), at(6), nil},
		"found after it, with no writer":       {live.Writer{}, at(21), []string{""}},
		"a removal, and a writer of that time": {by(at(12), true), at(21), []string{"x"}},
		"a removal, and a writer from before":  {by(at(5), true), at(21), []string{""}},
		"a removal that was found before it":   {by(at(5), true), at(6), nil},
	} {
		gap := Gap{Span: Span{From: at(10), To: at(20)}}
		gap.take(Finding{Writer: test.written, Found: test.found})
		var got []string
		for _, change := range gap.Changes {
			got = append(got, change.Manager)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestTheStateIsWrittenAndReadAgain(t *testing.T) {
	t.Parallel()
	clients := fake.NewClientset()
	noted := notes{live.Cluster{Client: clients, Namespace: "guard"}, nil}
	if got, err := ReadState(t.Context(), clients, "guard"); err != nil || !got.Decided.IsZero() || got.Report != nil {
		t.Fatalf("without a ConfigMap: got %+v, %v", got, err)
	}
	report := &Report{Mode: Heal, Gap: &Gap{Span: Span{From: metav1.Unix(1, 0), To: metav1.Unix(2, 0)}}}
	values := map[string]*string{decidedKey: new("2026-11-28T08:00:00Z"), reportKey: client.Encoded(report), gapKey: client.Encoded(Span{From: metav1.Unix(3, 0)})}
	if _, err := clients.CoreV1().ConfigMaps("guard").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: StateName}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := noted.write(t.Context(), "", values); err != nil {
		t.Fatal(err)
	}
	got, err := ReadState(t.Context(), clients, "guard")
	if err != nil || got.Decided.IsZero() || got.Report == nil || got.Report.Mode != Heal || got.Gap == nil || !got.Gap.From.Time.Equal(time.Unix(3, 0)) {
		t.Errorf("got %+v, %v", got, err)
	}
	for key, value := range map[string]string{decidedKey: "x", gapKey: "{", reportKey: "["} {
		if err := noted.write(t.Context(), "", map[string]*string{key: &value}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadState(t.Context(), clients, "guard"); err != nil || !got.Decided.IsZero() || got.Gap != nil || got.Report != nil {
		t.Errorf("what cannot be read: got %+v, %v", got, err)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	a, b := &Span{From: metav1.Unix(1, 0), To: metav1.Unix(5, 0)}, &Span{From: metav1.Unix(3, 0), To: metav1.Unix(9, 0)}
	if got := join(a, b); !got.From.Equal(&a.From) || !got.To.Equal(&b.To) {
		t.Errorf("got %+v", got)
	}
	if got := join(a, &Span{From: b.From, To: b.To, Defect: "x"}); got.Defect != "x" {
		t.Errorf("got %+v", got)
	}
	if join(nil, b) != b || join(a, nil) != a || join(nil, nil) != nil {
		t.Error("a span joined with none is not itself")
	}
}

func TestTheProverTellsAChangeOnce(t *testing.T) {
	t.Parallel()
	var said []string
	registry := prometheus.NewRegistry()
	p := NewProver(ProverOptions{
		Registry: registry, Log: slog.New(slog.DiscardHandler), Announce: func(reason, _ string) { said = append(said, reason) },
	})
	var last *string
	for _, states := range [][]verify.State{
		{verify.Protected, verify.Protected},
		{verify.Protected, verify.Open},
		{verify.Protected, verify.Open},
		{verify.Locked, verify.Open},
		{verify.Protected, verify.Observed},
		{verify.Protected, verify.Protected},
	} {
		last = p.tell([]verify.Protection{{Resource: "a", State: states[0]}, {Resource: "b", State: states[1], Cause: "c"}}, last)
	}
	if want := []string{"NotProtected", "NotProtected", "ProtectedAgain"}; !slices.Equal(said, want) {
		t.Errorf("got %v, want %v", said, want)
	}
	if got := testutil.ToFloat64(p.protected.WithLabelValues("b")); got != 1 {
		t.Errorf("the metric is %v", got)
	}
}

// Replicas have clocks that differ, so a running one does not read the times of the others.
func TestTheLedgerFindsGaps(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	ago := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	for name, test := range map[string]struct {
		decided, noted, stored time.Time
		want                   time.Time
	}{
		"the first note ever":                         {},
		"the first note of a replica, others note":    {stored: ago(3)},
		"the first note after all were away":          {stored: ago(60), want: ago(60)},
		"this replica noted lately":                   {decided: ago(3), noted: ago(3), stored: ago(3)},
		"nobody noted for a minute":                   {decided: ago(60), noted: ago(60), stored: ago(60), want: ago(60)},
		"another one noted, with a slow clock":        {decided: ago(60), noted: ago(60), stored: ago(300)},
		"another one noted, with a fast clock":        {decided: ago(60), noted: ago(60), stored: ago(-300)},
		"another one noted just before, a slow clock": {decided: ago(3), noted: ago(3), stored: ago(300)},
	} {
		l := &Ledger{decided: test.decided, noted: test.noted}
		got := l.gap(State{Decided: test.stored}, now)
		if (got == nil) != test.want.IsZero() || got != nil && !got.From.Time.Equal(test.want) {
			t.Errorf("%s: got %+v, want %s", name, got, test.want)
		}
	}
}

func TestAnotherWriterThanThatOfTheFightIsRestored(t *testing.T) {
	t.Parallel()
	w, s := newWatcher(t, func(*Options) {})
	s.fight.rounds = map[string]int{"editor": maxRounds}
	for range 2 {
		s.finding.Held = ""
		if _, err := w.hold(t.Context(), s); err != nil || !s.fight.isOver {
			t.Fatalf("the fight is not over: %v", err)
		}
	}
	s.finding.Manager, s.finding.Held = "other", ""
	if _, err := w.hold(t.Context(), s); err != nil || s.fight.isOver || s.finding.Held != "" {
		t.Errorf("held %q, %v", s.finding.Held, err)
	}
	if got := testutil.ToFloat64(w.heals.WithLabelValues(stopped)); got != 1 {
		t.Errorf("stopped %v times", got)
	}
}

func TestTheStateGoesWithTheRelease(t *testing.T) {
	t.Parallel()
	errGone := errors.New("gone")
	for name, test := range map[string]struct {
		owner *metav1.OwnerReference
		err   error
	}{
		"a release":           {owner: &metav1.OwnerReference{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: "a", UID: "u"}},
		"no release":          {},
		"a release that ends": {err: errGone},
	} {
		client := fake.NewClientset()
		noted := notes{
			live.Cluster{Client: client, Namespace: "guard"},
			func(context.Context) (*metav1.OwnerReference, error) { return test.owner, test.err },
		}
		err := noted.write(t.Context(), "", map[string]*string{decidedKey: new("x"), gapKey: nil})
		if !errors.Is(err, test.err) {
			t.Errorf("%s: got %v", name, err)
		}
		stored, getErr := client.CoreV1().ConfigMaps("guard").Get(t.Context(), StateName, metav1.GetOptions{})
		switch {
		case test.err != nil:
			if getErr == nil {
				t.Errorf("%s: the ConfigMap was created", name)
			}
		case getErr != nil || len(stored.Data) != 1:
			t.Errorf("%s: got %+v, %v", name, stored, getErr)
		case test.owner == nil && len(stored.OwnerReferences) > 0,
			test.owner != nil && (len(stored.OwnerReferences) != 1 || stored.OwnerReferences[0] != *test.owner):
			t.Errorf("%s: owned by %+v", name, stored.OwnerReferences)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func fact(at time.Time) Event {
	return Event{
		Time: at, RequestUID: "uid-" + at.Format("150405"), Outcome: v1alpha1.Denied, Operation: "UPDATE",
		Object: v1alpha1.ParseObjectReference("secrets/kube-system/x"), Reason: "ReservedUpdate", Changed: []string{"data"}, User: v1alpha1.User{Name: "jane"},
	}
}

// Whatever is lost on its way, doubled, or late: what every replica has counted last is what the record comes to.
func TestMergesComeToTheSameInAnyOrder(t *testing.T) {
	start := time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC)
	var states []*v1alpha1.AuditRecord
	f := fact(start)
	for replica := range 3 {
		for count := range 5 {
			f := fact(start.Add(time.Duration(count*10+replica) * time.Second))
			states = append(states, f.Counted(fmt.Sprintf("replica-%d", replica), int64(count+1)))
		}
	}
	want := f.Record("replica-0", 1)
	for _, state := range states {
		Merge(want, state)
	}
	if want.Spec.Count != 15 || len(want.Spec.Counts) != 3 {
		t.Fatalf("in order: count %d by %d replicas, want 15 by 3", want.Spec.Count, len(want.Spec.Counts))
	}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		got := f.Record("replica-0", 1)
		deliveries := slices.Concat(states, states)
		random.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
		for _, state := range deliveries {
			Merge(got, state)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-in order +shuffled):\n%s", seed, diff)
		}
		if Merge(got, want) {
			t.Fatalf("seed %d: merging what is there already says that it changed something", seed)
		}
	}
}

func TestFactsShareARecord(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 27, 0, 0, time.UTC)
	base := fact(at)
	base.User.Groups = []string{"a", "b"}
	for name, test := range map[string]struct {
		edit func(*Event)
		same bool
	}{
		"later in the window":                           {func(f *Event) { f.Time = at.Add(2 * time.Minute) }, true},
		"by another request":                            {func(f *Event) { f.RequestUID = "other" }, true},
		"said in other words":                           {func(f *Event) { f.Message = "other" }, true},
		"by a user in the same groups in another order": {func(f *Event) { f.User.Groups = []string{"b", "a"} }, true},
		"from another address":                          {func(f *Event) { f.Peer = "192.0.2.1:1" }, true},
		"by a user in other groups":                     {func(f *Event) { f.User.Groups = []string{"x"} }, false},
		"by a user of another uid":                      {func(f *Event) { f.User.UID = "other" }, false},
		"in the next window":                            {func(f *Event) { f.Time = at.Add(3 * time.Minute) }, false},
		"by another user":                               {func(f *Event) { f.User.Name = "joe" }, false},
		"of another outcome":                            {func(f *Event) { f.Outcome = v1alpha1.WouldDeny }, false},
		"of another reason":                             {func(f *Event) { f.Reason = "ReservedDelete" }, false},
		"to another resource":                           {func(f *Event) { f.Object.Name = "y" }, false},
		"by another operation":                          {func(f *Event) { f.Operation = "DELETE" }, false},
		"to another field":                              {func(f *Event) { f.Changed = []string{"type"} }, false},
		"to a field more":                               {func(f *Event) { f.Changed = []string{"data", "type"} }, false},
		"with a boundary moved in its texts":            {func(f *Event) { f.Object.Name, f.Reason = "xR", "eservedUpdate" }, false},
		"asked by a verified caller":                    {func(f *Event) { f.Caller = v1alpha1.CallerVerified }, false},
		"imported":                                      {func(f *Event) { f.Source = v1alpha1.SourceImport }, false},
	} {
		t.Run(name, func(t *testing.T) {
			edited := base
			test.edit(&edited)
			if got := edited.Name() == base.Name(); got != test.same {
				t.Errorf("shares a record: %t, want %t (%s and %s)", got, test.same, base.Name(), edited.Name())
			}
		})
	}
}

func TestNamesAreInOrderOfTime(t *testing.T) {
	early, late := fact(time.Date(2026, 9, 30, 23, 55, 0, 0, time.UTC)), fact(time.Date(2026, 10, 1, 0, 5, 0, 0, time.UTC))
	early.Operation, late.Operation = "UPDATE", "CREATE"
	if !(early.Name() < late.Name()) {
		t.Errorf("%s is not before %s", early.Name(), late.Name())
	}
}

func TestAFloodSharesOneRecordAMinute(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 27, 59, 0, time.UTC)
	one, other := fact(at), fact(at)
	other.User.Name, other.Object.Name = "joe", "z"
	first, second := one.Flooded(), other.Flooded()
	if first.Name() != second.Name() {
		t.Errorf("two records: %s and %s", first.Name(), second.Name())
	}
	other.Time = at.Add(time.Second)
	if next := other.Flooded(); next.Name() == first.Name() || !next.Ends().Equal(at.Add(61*time.Second)) {
		t.Errorf("the next minute is %s, until %v", next.Name(), next.Ends())
	}
}

func TestAFloodOfOneUserKeepsUserOperationAndKind(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 27, 59, 0, time.UTC)
	one, other, third := fact(at), fact(at.Add(time.Second)), fact(at)
	one.Caller, other.Caller = v1alpha1.CallerUnverified, v1alpha1.CallerUnverified
	other.Object.Name, third.User.Name = "other", "joe"
	first, second, foreign := one.FloodedByUser(), other.FloodedByUser(), third.FloodedByUser()
	if first.Name() != second.Name() || first.Name() == foreign.Name() {
		t.Errorf("got %s, %s and of another user %s", first.Name(), second.Name(), foreign.Name())
	}
	got := first.Record("a", 1).Spec
	if got.User.Name != one.User.Name || got.Operation != one.Operation || got.Resource != "secrets" || got.Reason != FloodReason ||
		got.Caller != v1alpha1.CallerUnverified {
		t.Errorf("got %+v", got)
	}
	user := one.FloodedOfUser()
	if got := user.Record("a", 1).Spec; got.User.Name != one.User.Name || got.Operation != "" || got.Resource != "" {
		t.Errorf("got %+v", got)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"math"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// counted returns the record of a fact that two replicas have counted.
func counted() *v1alpha1.AuditRecord {
	f := fact(time.Date(2026, 11, 25, 8, 27, 0, 0, time.UTC))
	record := f.Record("a", 3)
	Merge(record, f.Counted("b", 4))
	return record
}

func TestRecordsThatAgreeMayBeMerged(t *testing.T) {
	for name, test := range map[string]struct {
		edit  func(*v1alpha1.AuditRecordSpec)
		agree bool
	}{
		"counts":          {func(s *v1alpha1.AuditRecordSpec) { s.Count = 9 }, true},
		"message":         {func(s *v1alpha1.AuditRecordSpec) { s.Message = "other" }, true},
		"outcome":         {func(s *v1alpha1.AuditRecordSpec) { s.Outcome = v1alpha1.Restored }, false},
		"operation":       {func(s *v1alpha1.AuditRecordSpec) { s.Operation = "CREATE" }, false},
		"resource":        {func(s *v1alpha1.AuditRecordSpec) { s.Resource = "secrets/x" }, false},
		"object":          {func(s *v1alpha1.AuditRecordSpec) { s.Object.Name = "y" }, false},
		"changed":         {func(s *v1alpha1.AuditRecordSpec) { s.Changed = []string{"x"} }, false},
		"reason":          {func(s *v1alpha1.AuditRecordSpec) { s.Reason = "TokenMint" }, false},
		"user":            {func(s *v1alpha1.AuditRecordSpec) { s.User.Name = "bob" }, false},
		"user uid":        {func(s *v1alpha1.AuditRecordSpec) { s.User.UID = "1" }, false},
		"groups":          {func(s *v1alpha1.AuditRecordSpec) { s.User.Groups = []string{"admins"} }, false},
		"order of groups": {func(s *v1alpha1.AuditRecordSpec) { slices.Reverse(s.User.Groups) }, true},
		"source":          {func(s *v1alpha1.AuditRecordSpec) { s.Source = v1alpha1.SourceImport }, false},
		"no source":       {func(s *v1alpha1.AuditRecordSpec) { s.Source = "" }, true},
		"caller":          {func(s *v1alpha1.AuditRecordSpec) { s.Caller = v1alpha1.CallerVerified }, false},
	} {
		t.Run(name, func(t *testing.T) {
			edited, base := counted(), counted()
			edited.Spec.User.Groups, base.Spec.User.Groups = []string{"a", "b"}, []string{"a", "b"}
			test.edit(&edited.Spec)
			if got := Agree(base, edited); got != test.agree {
				t.Errorf("agree: %t, want %t", got, test.agree)
			}
		})
	}
}

func TestARecordThatWasTamperedWithIsNotSound(t *testing.T) {
	if !Sound(counted()) || !InWindow(counted()) || !Holds(counted(), counted()) {
		t.Fatal("a record that nobody has tampered with is not sound")
	}
	for name, edit := range map[string]func(*v1alpha1.AuditRecord){
		"a count at the maximum": func(r *v1alpha1.AuditRecord) { r.Spec.Counts[0].Count, r.Spec.Count = math.MaxInt64, math.MaxInt64 },
		"the sum at the maximum": func(r *v1alpha1.AuditRecord) { r.Spec.Count = math.MaxInt64 },
		"counts whose sum wraps round to their count": func(r *v1alpha1.AuditRecord) {
			r.Spec.Counts = []v1alpha1.ReplicaCount{
				{Replica: "a", Count: math.MaxInt64}, {Replica: "b", Count: math.MaxInt64}, {Replica: "c", Count: 9},
			}
			r.Spec.Count = 7
		},
		"a sum that is too low":     func(r *v1alpha1.AuditRecord) { r.Spec.Count = 1 },
		"a count below zero":        func(r *v1alpha1.AuditRecord) { r.Spec.Counts[0].Count, r.Spec.Count = -3, 1 },
		"no counts":                 func(r *v1alpha1.AuditRecord) { r.Spec.Counts = nil },
		"counts in another order":   func(r *v1alpha1.AuditRecord) { r.Spec.Counts[0], r.Spec.Counts[1] = r.Spec.Counts[1], r.Spec.Counts[0] },
		"an end before the start":   func(r *v1alpha1.AuditRecord) { r.Spec.LastTime = metav1.NewMicroTime(time.Unix(0, 0)) },
		"an owner":                  func(r *v1alpha1.AuditRecord) { r.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} },
		"a finalizer":               func(r *v1alpha1.AuditRecord) { r.Finalizers = []string{"x/y"} },
		"a deletion that has begun": func(r *v1alpha1.AuditRecord) { r.DeletionTimestamp = new(metav1.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			edited := counted()
			edit(edited)
			if Sound(edited) {
				t.Errorf("sound: %+v", edited)
			}
		})
	}
}

func TestARecordHoldsWhatItHeldBefore(t *testing.T) {
	for name, test := range map[string]struct {
		edit  func(*v1alpha1.AuditRecord)
		holds bool
	}{
		"a count raised":      {func(r *v1alpha1.AuditRecord) { r.Spec.Counts[0].Count = 30 }, true},
		"a count lowered":     {func(r *v1alpha1.AuditRecord) { r.Spec.Counts[1].Count = 1 }, false},
		"a count removed":     {func(r *v1alpha1.AuditRecord) { r.Spec.Counts = r.Spec.Counts[:1] }, false},
		"the start moved":     {func(r *v1alpha1.AuditRecord) { r.Spec.FirstTime = metav1.NewMicroTime(r.Spec.FirstTime.Add(1000)) }, false},
		"the end moved back":  {func(r *v1alpha1.AuditRecord) { r.Spec.LastTime = metav1.NewMicroTime(r.Spec.LastTime.Add(-1000)) }, false},
		"the end moved on":    {func(r *v1alpha1.AuditRecord) { r.Spec.LastTime = metav1.NewMicroTime(r.Spec.LastTime.Add(1000)) }, true},
		"made anew elsewhere": {func(r *v1alpha1.AuditRecord) { r.UID = "other" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			edited := counted()
			test.edit(edited)
			if got := Holds(edited, counted()); got != test.holds {
				t.Errorf("holds: %t, want %t", got, test.holds)
			}
		})
	}
}

func TestTimesOutsideOfTheWindowAreFound(t *testing.T) {
	for name, edit := range map[string]func(*v1alpha1.AuditRecord){
		"years before": func(r *v1alpha1.AuditRecord) { r.Spec.FirstTime = metav1.NewMicroTime(time.Unix(0, 0)) },
		"years after": func(r *v1alpha1.AuditRecord) {
			r.Spec.LastTime = metav1.NewMicroTime(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
		},
		"at the end of the window": func(r *v1alpha1.AuditRecord) {
			start, _ := WindowOf(r.Name)
			r.Spec.LastTime = metav1.NewMicroTime(start.Add(Window))
		},
	} {
		edited := counted()
		edit(edited)
		if InWindow(edited) {
			t.Errorf("%s: in the window", name)
		}
	}
}

func TestASecondNameLeadsToTheFirst(t *testing.T) {
	first := counted().Name
	second := SecondName(first)
	third := SecondName(second)
	if second == first || third == second || FirstName(third) != first || FirstName(first) != first {
		t.Errorf("got %s and %s of %s", second, third, first)
	}
}

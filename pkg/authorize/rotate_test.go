// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// e2e/retire tests what a rotation does; these are the reasons not to begin one.
func TestRotateRefuses(t *testing.T) {
	tests := map[string]struct {
		prepare     func(t *testing.T, a *Authorizer)
		reservation func(r *reserved.Reservation)
		state       v1alpha1.UnlockState
		want        error
	}{
		"a retired reservation": {want: ErrRetired, prepare: func(t *testing.T, a *Authorizer) {
			t.Helper()
			if err := a.mark(t.Context(), "shop", &lookup.Retirement{State: lookup.Retiring, By: "ann"}); err != nil {
				t.Fatal(err)
			}
		}},
		"an absent ServiceAccount": {want: ErrNoCredential, prepare: func(t *testing.T, a *Authorizer) {
			t.Helper()
			if err := a.cluster.Client.CoreV1().ServiceAccounts("kube-system").Delete(t.Context(), "clerk", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}},
		"a reservation without a token Secret": {want: ErrNoCredential, reservation: func(r *reserved.Reservation) {
			r.Resources = r.Resources[:3]
		}},
		"an unlock that is not approved": {want: ErrApproval, state: v1alpha1.UnlockPending},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, dynamicClient := shopToRetire(t, false)
			if test.prepare != nil {
				test.prepare(t, a)
			}
			options := retirement(t, &fakeUnlocks{state: test.state}, &fakeRecords{})
			if test.reservation != nil {
				test.reservation(options.Reservation)
			}
			if _, err := a.Rotate(t.Context(), options); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			for _, action := range dynamicClient.Actions() {
				if verb := action.GetVerb(); verb != "get" && verb != "list" {
					t.Errorf("it made a %s of %s", verb, action.GetResource().Resource)
				}
			}
		})
	}
}

// The next run reuses the Unlock of an interrupted one only if it allows the same to the same user for long enough.
func TestTheUnlockOfAnInterruptedRunIsFound(t *testing.T) {
	a, _, _ := shopToRetire(t, false)
	unlocks := &fakeUnlocks{state: v1alpha1.UnlockOpen}
	r, err := a.newRun(t.Context(), retirement(t, unlocks, nil))
	if err != nil {
		t.Fatal(err)
	}
	end := metav1.NewTime(time.Now().Add(time.Minute))
	fits := v1alpha1.UnlockSpec{Reservation: "shop", RequestedBy: "ann", Reason: "retire shop", ExpiresAt: end}
	tests := map[string]struct {
		change func(*v1alpha1.UnlockSpec)
		want   string
	}{
		"the same":             {func(*v1alpha1.UnlockSpec) {}, "unlock-1"},
		"another user's":       {func(s *v1alpha1.UnlockSpec) { s.RequestedBy = "eve" }, ""},
		"another reason":       {func(s *v1alpha1.UnlockSpec) { s.Reason = "another one" }, ""},
		"another reservation":  {func(s *v1alpha1.UnlockSpec) { s.Reservation = "mall" }, ""},
		"one resource":         {func(s *v1alpha1.UnlockSpec) { s.Resources = []string{"x"} }, ""},
		"closed":               {func(s *v1alpha1.UnlockSpec) { s.Closed = true }, ""},
		"about to end":         {func(s *v1alpha1.UnlockSpec) { s.ExpiresAt = metav1.NewTime(time.Now().Add(time.Second)) }, ""},
		"for other operations": {func(s *v1alpha1.UnlockSpec) { s.Operations = append(s.Operations, "DELETE") }, ""},
	}
	for name, test := range tests {
		spec := fits
		test.change(&spec)
		unlocks.opened = []v1alpha1.Unlock{{ObjectMeta: metav1.ObjectMeta{Name: "unlock-1"}, Spec: spec}}
		if got, err := r.findUnlock(t.Context(), nil); got != test.want || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

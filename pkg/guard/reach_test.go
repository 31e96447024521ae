// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// Only the API server's own word that it cannot call the guard keeps the webhooks from failing closed.
func TestWhatAProbeSaysAboutTheWay(t *testing.T) {
	t.Parallel()
	unreachable := fmt.Errorf("%w: connection refused", registration.ErrUnreachable)
	for name, test := range map[string]struct {
		err             error
		late            bool
		proven, problem bool
	}{
		"a review arrives":                 {proven: true},
		"no way, yet":                      {err: unreachable},
		"no way, for long":                 {err: unreachable, late: true, problem: true},
		"not asked, yet":                   {err: registration.ErrNotAsked},
		"not asked, for long":              {err: registration.ErrNotAsked, late: true, proven: true},
		"RBAC refuses the probe":           {err: apierrors.NewForbidden(schema.GroupResource{}, "x", nil), proven: true},
		"there is no namespace":            {err: apierrors.NewNotFound(schema.GroupResource{}, "x"), proven: true},
		"the API server is overloaded":     {err: apierrors.NewTooManyRequests("x", 1), late: true},
		"the API server fails":             {err: apierrors.NewInternalError(errors.New("x")), late: true},
		"the API server cannot be reached": {err: errors.New("connection refused"), late: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := newTestGuard(t, func(o *Options) { o.Mode = policy.Enforce })
			if err != nil {
				t.Fatal(err)
			}
			g.judgeReach(test.err, test.late)
			want := admissionregistrationv1.Ignore
			if test.proven {
				want = admissionregistrationv1.Fail
			}
			if got := g.failurePolicy(nil); got != want || (g.reach.currentProblem() != "") != test.problem || (g.reach.check(nil) == nil) != test.proven {
				t.Errorf("got %s and problem %q", got, g.reach.currentProblem())
			}
		})
	}
}

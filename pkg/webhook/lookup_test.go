// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// silent answers no lookup before its context ends.
type silent struct{}

func (silent) Holds(ctx context.Context, _ policy.Lookup) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

// A review that waits longer than the API server does would fail without a reason.
func TestLookupsShareOneTimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handler := newHandler(t, io.Discard, false)
		handler.Lookup = silent{}
		start := time.Now()
		answers, err := handler.holds(t.Context(), []policy.Lookup{{}, {OnError: true}, {}})
		if took := time.Since(start); took != LookupTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it took %s and failed with %v, want %s", took, err, LookupTimeout)
		}
		if want := []bool{false, true, false}; !slices.Equal(answers, want) {
			t.Errorf("got %t, want %t", answers, want)
		}
	})
}

// answer is the answer to every lookup.
type answer struct {
	holds bool
	err   error
}

func (a answer) Holds(context.Context, policy.Lookup) (bool, error) { return a.holds, a.err }

func TestOnErrorIsTheAnswerOfALookupThatFails(t *testing.T) {
	t.Parallel()
	failed := errors.New("forbidden")
	for _, test := range []struct {
		answer
		onError, want bool
	}{
		{answer{false, nil}, true, false},
		{answer{true, nil}, false, true},
		{answer{false, failed}, false, false},
		{answer{true, failed}, false, false},
		{answer{false, failed}, true, true},
	} {
		handler := newHandler(t, io.Discard, false)
		handler.Lookup = test.answer
		got, err := handler.holds(t.Context(), []policy.Lookup{{OnError: test.onError}})
		if !slices.Equal(got, []bool{test.want}) || !errors.Is(err, test.err) {
			t.Errorf("%+v: got %t, %v", test, got, err)
		}
	}
}

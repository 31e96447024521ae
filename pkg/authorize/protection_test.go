// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAwaitProtection(t *testing.T) {
	tests := map[string]struct {
		// answer is that to the n-th write.
		answer   func(n int64) (int, string)
		refuses  func(method, path string) bool
		patience time.Duration
		want     error
		says     string
	}{
		"a guard that denies": {
			answer: func(int64) (int, string) { return deny("") }, patience: time.Minute,
		},
		"a guard that comes later": {
			answer: func(n int64) (int, string) {
				if n == 1 {
					return http.StatusOK, ""
				}
				return deny("")
			},
			patience: time.Minute,
		},
		"no guard": {
			answer: func(int64) (int, string) { return http.StatusOK, "" }, patience: time.Second,
			want: ErrUnprotected, says: "serviceaccounts/kube-system/clerk is not protected: a forbidden merge patch, as a dry-run, came to: allowed",
		},
		"a guard that does not answer": {
			answer: func(int64) (int, string) {
				return http.StatusInternalServerError, `Internal error occurred: failed calling webhook "a.apigw-guardian.io": timeout`
			},
			patience: time.Second, want: ErrUnprotected, says: "the guard was asked and did not answer",
		},
		"what RBAC does not let the caller try is not waited for": {
			answer: func(int64) (int, string) { return deny("") },
			refuses: func(method, path string) bool {
				return method == http.MethodPatch && strings.Contains(path, "/secrets/")
			},
			patience: time.Minute,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, a := serve(t, setOf(t, shop))
			var writes atomic.Int64
			server.answer = func(string) (int, string) { return test.answer(writes.Add(1)) }
			server.refuses = test.refuses
			err := a.AwaitProtection(t.Context(), test.patience)
			if !errors.Is(err, test.want) || (err != nil && !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
			}
		})
	}
}

func TestAwaitProtectionEndsWithItsContext(t *testing.T) {
	server, a := serve(t, setOf(t, shop))
	server.answer = func(string) (int, string) { return http.StatusOK, "" }
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("told to end")
	cancel(cause)
	if err := a.AwaitProtection(ctx, time.Minute); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

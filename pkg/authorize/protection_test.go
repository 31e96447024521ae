// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"net/http"
	"strconv"
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

// The init job may not read an older token Secret. An earlier run has left that it is in use.
func TestAwaitProtectionWithATokenSecretThatMayNotBeRead(t *testing.T) {
	const secrets = "/api/v1/namespaces/kube-system/secrets"
	server, a := serve(t, setOf(t, shop))
	a.cluster.Namespace = guardNamespace
	delete(server.objects, secrets+"/clerk-token-own")
	server.objects["/api/v1/namespaces/kube-system/serviceaccounts/clerk"] = `{"apiVersion":"v1","kind":"ServiceAccount","metadata":` +
		`{"namespace":"kube-system","name":"clerk","uid":"uid-1"}}`
	server.objects["/api/v1/namespaces/guard-system/configmaps/apigw-guardian-credentials"] = `{"data":{"kube-system.clerk":` +
		strconv.Quote(leftFor("uid-1", "clerk-token-x")) + `}}`
	server.refuses = func(_, path string) bool { return path == secrets || path == secrets+"/clerk-token-x" }
	if err := a.AwaitProtection(t.Context(), time.Second); err != nil {
		t.Errorf("got %v", err)
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

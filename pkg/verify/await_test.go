// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

func TestAwait(t *testing.T) {
	tests := map[string]struct {
		// answer is that to the n-th write.
		answer       func(n int64) (int, string)
		refuses      func(method, path string) bool
		limit, takes time.Duration
		want         error
		says         string
	}{
		"a guard that denies": {
			answer: func(int64) (int, string) { return shop.Deny("") }, limit: time.Minute,
		},
		"a guard that comes later": {
			answer: func(n int64) (int, string) {
				if n == 1 {
					return http.StatusOK, ""
				}
				return shop.Deny("")
			},
			limit: time.Minute, takes: awaitInterval,
		},
		"no guard": {
			answer: func(int64) (int, string) { return http.StatusOK, "" }, limit: time.Second, takes: time.Second,
			want: ErrUnprotected, says: "serviceaccounts/kube-system/clerk is not protected: dry-run of a forbidden merge patch: allowed",
		},
		"a guard that does not answer": {
			answer: func(int64) (int, string) {
				return http.StatusInternalServerError, `Internal error occurred: failed calling webhook "a.apigw-guardian.io": timeout`
			},
			limit: time.Second, takes: time.Second, want: ErrUnprotected, says: "the guard did not answer",
		},
		"what RBAC does not let the caller try is not waited for": {
			answer: func(int64) (int, string) { return shop.Deny("") },
			refuses: func(method, path string) bool {
				return method == http.MethodPatch && strings.Contains(path, "/secrets/")
			},
			limit: time.Minute,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, cluster := serve(t, shop.Set(t, shop.Reservation))
				var writes atomic.Int64
				server.Answer = func(string) (int, string) { return test.answer(writes.Add(1)) }
				server.Refuses = test.refuses
				start := time.Now()
				err := New(cluster, PermittedWrites).Await(t.Context(), test.limit)
				if !errors.Is(err, test.want) || (err != nil && !strings.Contains(err.Error(), test.says)) {
					t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
				}
				if took := time.Since(start); took != test.takes {
					t.Errorf("it took %v, want %v", took, test.takes)
				}
			})
		})
	}
}

// The init job may not read an older token Secret. An earlier run has left that it is in use.
func TestAwaitWithATokenSecretThatMayNotBeRead(t *testing.T) {
	const secrets = "/api/v1/namespaces/kube-system/secrets"
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	cluster.Namespace = "guard-system"
	delete(server.Objects, secrets+"/clerk-token-own")
	server.Objects["/api/v1/namespaces/kube-system/serviceaccounts/clerk"] = `{"apiVersion":"v1","kind":"ServiceAccount","metadata":` +
		`{"namespace":"kube-system","name":"clerk","uid":"uid-1"}}`
	server.Objects["/api/v1/namespaces/guard-system/configmaps/apigw-guardian-credentials"] = `{"data":{"kube-system.clerk":` +
		strconv.Quote(`{"namespace":"kube-system","account":"clerk","accountUID":"uid-1","secret":"clerk-token-x"}`) + `}}`
	server.Refuses = func(_, path string) bool { return path == secrets || path == secrets+"/clerk-token-x" }
	if err := New(cluster, PermittedWrites).Await(t.Context(), time.Second); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	server.Answer = func(string) (int, string) { return http.StatusOK, "" }
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("told to end")
	cancel(cause)
	if err := New(cluster, PermittedWrites).Await(ctx, time.Minute); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

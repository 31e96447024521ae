// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

// The guard keeps running without a reserved kind, so that only its log tells an administrator.
func TestReservedKindsAreCheckedUntilTheAPIServerAnswers(t *testing.T) {
	t.Parallel()
	const end = 25 * time.Second // of the context
	for name, test := range map[string]struct {
		// down is how long the API server does not answer.
		down      time.Duration
		notServed bool
		lines     int
		took      time.Duration
	}{
		"every kind is served":                  {},
		"a kind is not served":                  {notServed: true, lines: 1},
		"the API server answers later":          {down: 15 * time.Second, lines: 2, took: 2 * checkInterval},
		"and does not serve a kind":             {down: 15 * time.Second, notServed: true, lines: 3, took: 2 * checkInterval},
		"the API server does not answer at all": {down: time.Hour, lines: 3, took: end},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				client, _ := shop.Fakes(nil, nil)
				if test.notServed {
					client.Resources[1].APIResources = client.Resources[1].APIResources[:1]
				}
				client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
					return time.Since(start) < test.down, nil, errBroken
				})
				var out bytes.Buffer
				g := &Guard{client: client, options: Options{
					Set: shop.Set(t, shop.Reservation), Log: slog.New(slog.NewTextHandler(&out, nil)),
				}}
				ctx, cancel := context.WithTimeout(t.Context(), end)
				defer cancel()
				g.checkKinds(ctx)
				if took := time.Since(start); took != test.took {
					t.Errorf("it took %s, want %s", took, test.took)
				}
				if got := strings.Count(out.String(), "level=ERROR"); got != test.lines {
					t.Errorf("%d errors in the log, want %d:\n%s", got, test.lines, &out)
				}
			})
		})
	}
}

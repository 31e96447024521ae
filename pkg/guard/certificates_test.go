// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/certs"
)

// fakeSource counts how many lead at the same time.
type fakeSource struct {
	problem    atomic.Value // a string
	refreshErr error
	leaders    atomic.Int32
}

func (*fakeSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil } //nolint:nilnil // not called

func (s *fakeSource) Refresh(context.Context) ([]byte, error) { return []byte("stored"), s.refreshErr }

func (*fakeSource) Bundle() []byte { return []byte("held") }

func (s *fakeSource) State() certs.State {
	problem, _ := s.problem.Load().(string)
	return certs.State{Problem: problem}
}

func (*fakeSource) Follow(context.Context) {}

func (s *fakeSource) Lead(ctx context.Context) {
	s.leaders.Add(1)
	<-ctx.Done()
	s.leaders.Add(-1)
}

func loadedCertificates(s *fakeSource) *certificates {
	c := &certificates{loaded: make(chan struct{}), leading: make(chan struct{}, 1)}
	c.load(s)
	return c
}

func TestAReplicaStandsInWhileAProblemLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSource{}
		c := loadedCertificates(s)
		go c.standIn(t.Context())
		step := func(problem string, pause time.Duration, want int32) {
			t.Helper()
			s.problem.Store(problem)
			time.Sleep(pause)
			synctest.Wait()
			if got := s.leaders.Load(); got != want {
				t.Errorf("leaders: got %d, want %d", got, want)
			}
		}
		step("", time.Hour, 0)
		step("late", standInPatience-time.Second, 0)
		step("late", 3*standInInterval, 1)
		step("late", time.Hour, 1)
		step("", 2*standInInterval, 0)
		step("late", 2*standInPatience, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.lead(ctx) // elected meanwhile
		step("late", time.Hour, 1)
		step("", 2*standInInterval, 1) // the elected leader goes on
	})
}

func TestTheBundleOfAReplicaThatMayNotReadTheSecret(t *testing.T) {
	t.Parallel()
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "x", nil)
	unreachable := errors.New("unreachable")
	for name, test := range map[string]struct {
		refresh, err error
		want         string
	}{
		"it may read it":                {nil, nil, "stored"},
		"it may not":                    {forbidden, nil, "held"},
		"the API server is unreachable": {unreachable, unreachable, "stored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundle, err := loadedCertificates(&fakeSource{refreshErr: test.refresh}).bundle(t.Context())
			if !errors.Is(err, test.err) || err == nil && string(bundle) != test.want {
				t.Errorf("got %q and %v, want %q and %v", bundle, err, test.want, test.err)
			}
		})
	}
}

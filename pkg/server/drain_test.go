// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// blocking is a handler that reports its entry, waits, and then tells what became of
// its context.
type blocking struct {
	entered chan struct{}
	release chan struct{}
}

func newBlocking() *blocking {
	return &blocking{entered: make(chan struct{}, 8), release: make(chan struct{})}
}

func (b *blocking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.entered <- struct{}{}
	<-b.release
	if err := r.Context().Err(); err != nil {
		http.Error(w, err.Error(), http.StatusGone)
		return
	}
	_, _ = io.WriteString(w, "answered")
}

func TestReadinessEndsAtOnceWithTheContext(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(ok), slowDrain)
	ready := h.Ready
	if err := ready(nil); err != nil {
		t.Errorf("while serving: %v, want ready", err)
	}
	h.cancel()
	if err := ready(nil); !errors.Is(err, errDraining) {
		t.Errorf("right after the cancellation: %v, want ErrDraining", err)
	}
	h.endDrain()
	if err := await(t, h.ended, "the end of Start"); err != nil {
		t.Errorf("Start: %v, want nil", err)
	}
	if err := ready(nil); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v, want ErrStopped", err)
	}
}

func TestARequestInFlightAtTheCancellationIsAnswered(t *testing.T) {
	hook := newBlocking()
	h := start(t, limits{}, hook, slowDrain)
	inFlight := h.postAsync(h.client(t))
	await(t, hook.entered, "the request")
	h.cancel()
	close(hook.release)
	want := reply{status: http.StatusOK, body: "answered", closes: true}
	if got := await(t, inFlight, "the answer"); got != want {
		t.Errorf("answer %+v, want %+v", got, want)
	}
}

func TestNewRequestsAreServedDuringTheDrainAndToldToLeave(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "silent" {
			ok(w, r)
		}
	}), slowDrain)
	old := h.client(t)
	if got, want := h.post(old, "", ""), (reply{status: http.StatusOK, body: "ok"}); got != want {
		t.Fatalf("before the drain: %+v, want %+v", got, want)
	}
	h.cancel()
	cases := map[string]struct {
		client *http.Client
		query  string
		want   reply
	}{
		"on a connection from before the drain":     {old, "", reply{status: http.StatusOK, body: "ok", closes: true}},
		"on a new connection":                       {h.client(t), "", reply{status: http.StatusOK, body: "ok", closes: true}},
		"by a handler that leaves it all to us":     {h.client(t), "?silent", reply{status: http.StatusOK, closes: true}},
		"after which the client comes back at will": {old, "", reply{status: http.StatusOK, body: "ok", closes: true}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := h.post(tc.client, tc.query, ""); got != tc.want {
				t.Errorf("answer %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestAfterTheDrainThePortIsClosedAndTheLastRequestAnswered(t *testing.T) {
	hook := newBlocking()
	h := start(t, limits{}, hook, slowDrain)
	inFlight := h.postAsync(h.client(t))
	await(t, hook.entered, "the request")
	h.cancel()
	h.endDrain()
	awaitRefusal(t, h.Addr().String())
	close(hook.release)
	if got := await(t, inFlight, "the answer"); got.status != http.StatusOK || got.body != "answered" {
		t.Errorf("answer %+v, want 200", got)
	}
	if err := await(t, h.ended, "the end of Start"); err != nil {
		t.Errorf("Start: %v, want nil", err)
	}
}

// awaitRefusal dials until nobody listens any more.
func awaitRefusal(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), giveUp)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("dial %s: %v, want a refused connection", addr, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func TestWithoutADrainPeriodTheShutdownFollowsAtOnce(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(ok))
	h.cancel()
	if err := await(t, h.ended, "the end of Start"); err != nil {
		t.Errorf("Start: %v, want nil", err)
	}
}

func TestAShutdownIsBounded(t *testing.T) {
	hook := newBlocking()
	h := start(t, limits{shutdown: 50 * time.Millisecond}, hook)
	t.Cleanup(func() { close(hook.release) })
	inFlight := h.postAsync(h.client(t))
	await(t, hook.entered, "the request")
	h.cancel()
	if err := await(t, h.ended, "the end of Start"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v, want DeadlineExceeded", err)
	}
	if got := await(t, inFlight, "the cut"); got.err == nil {
		t.Errorf("answer %+v, want an error", got)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"
)

// handler wraps Options.Handler: it receives the body, catches panics, and waits for a slot.
func (s *Server) handler() http.Handler {
	return s.receiving(s.fenced(s.admitted(s.opts.Handler)))
}

// fenced turns a panic into an answer.
func (s *Server) fenced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{ResponseWriter: w, last: func() bool { return s.Ready(nil) != nil }}
		defer s.recoverPanic(out, r)
		next.ServeHTTP(out, r)
		if !out.sent { // net/http would send the head without out
			out.WriteHeader(http.StatusOK)
		}
	})
}

// recoverPanic answers 500 if nothing has been sent, or else cuts the connection, so that no client reads half an answer.
func (s *Server) recoverPanic(w *answer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // a panic's value is no wrapped error
		panic(cause) //nolint:forbidigo // the handler asks net/http to cut the connection in silence
	}
	s.opts.Log.ErrorContext(r.Context(), "webhook handler panicked",
		slog.String("err", describe(cause)), slog.String("path", r.URL.Path), slog.String("stack", string(debug.Stack())))
	if w.sent {
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's way to cut a connection
	}
	clear(w.Header())
	w.Header().Set("Connection", "close")
	http.Error(w, "internal error: the guard's log has the cause", http.StatusInternalServerError)
}

// describe returns the text of a runtime error, and only the type of any other value: it may hold a piece of a Secret.
func describe(cause any) string {
	if err, ok := cause.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("panic with a value of type %T", cause)
}

// admitted handles limits.inFlight requests at a time, each with a deadline in its context. It refuses a request that has waited for
// half of its time: the caller needs the other half to read the refusal, and a later review would hardly be in time.
func (s *Server) admitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timeout := s.reviewTimeout(r)
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		if !s.acquire(ctx, timeout/2) {
			s.refuse(w)
			return
		}
		defer func() { <-s.slots }()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// acquire waits for a slot. The first select needs no timer.
func (s *Server) acquire(ctx context.Context, patience time.Duration) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// refuse answers that the server is busy. The API server takes that for a failed call, and applies the failurePolicy.
func (s *Server) refuse(w http.ResponseWriter) {
	s.refused.Add(1)
	s.noise.warn("request refused: too many in flight", slog.Int("limit", s.limits.inFlight))
	w.Header().Set("Retry-After", "1")
	http.Error(w, fmt.Sprintf("busy: %d requests are in flight, try again", s.limits.inFlight), http.StatusServiceUnavailable)
}

// reviewTimeout returns the timeout that the API server puts into the URL as "?timeout=5s", limits.review at most and without one.
func (s *Server) reviewTimeout(r *http.Request) time.Duration {
	asked, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || asked <= 0 {
		return s.limits.review
	}
	return min(asked, s.limits.review)
}

// answer is a ResponseWriter that knows whether its head has been sent. It adds "Connection: close" to the head of the connection's
// last answer, and decides that at the last moment, so that a request in flight at the begin of the drain gets it too. It has no
// Unwrap, as a head that is sent past it would be unknown to it.
type answer struct {
	http.ResponseWriter
	last func() bool
	sent bool
}

// WriteHeader notes that the answer has begun.
func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK && !a.sent { // 1xx are no answers
		a.sent = true
		if a.last() {
			a.Header().Set("Connection", "close")
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if !a.sent {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

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

// handler is what stands between the socket and the mux, from the outside inwards: the body's way into memory, the panic
// fence, the wait for a slot.
func (s *Server) handler() http.Handler {
	return s.receiving(s.fenced(s.admitted(s.opts.Handler)))
}

// fenced turns a panic into an answer.
func (s *Server) fenced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{ResponseWriter: w, last: func() bool { return s.Ready(nil) != nil }}
		defer s.recoverPanic(out, r)
		next.ServeHTTP(out, r)
		if !out.sent { // net/http would send the head past out
			out.WriteHeader(http.StatusOK)
		}
	})
}

// recoverPanic answers 500 if nothing has been sent, and else cuts the connection,
// so that no client takes half an answer for a whole one.
func (s *Server) recoverPanic(w *answer, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // a panic's value is no wrapped error
		panic(cause) //nolint:forbidigo // the handler's wish, and net/http's way: the connection is cut in silence
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

// describe gives the runtime's own words, and of any other value only the type: it
// may hold a piece of a Secret.
func describe(cause any) string {
	if err, ok := cause.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("panic with a value of type %T", cause)
}

// admitted lets MaxInFlight requests through at a time, each with a deadline in its
// context. A request that has waited in vain for half of its time is refused: the
// other half is what the caller needs to read the refusal, and a review started
// later would hardly be in time.
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

// acquire waits for a slot. The plain select first spares a timer when one is free.
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

// refuse answers that the server is busy. The API server treats it as a failed call,
// which the registration's failurePolicy turns into a refused write.
func (s *Server) refuse(w http.ResponseWriter) {
	s.noise.warn("request refused: too many in flight", slog.Int("limit", s.limits.inFlight))
	w.Header().Set("Retry-After", "1")
	http.Error(w, fmt.Sprintf("busy: %d requests are in flight, try again", s.limits.inFlight),
		http.StatusServiceUnavailable)
}

// reviewTimeout is the caller's own timeout, which the API server puts into the URL
// as "?timeout=5s", if it is above zero and below limits.review.
func (s *Server) reviewTimeout(r *http.Request) time.Duration {
	if r.URL.RawQuery == "" {
		return s.limits.review
	}
	asked, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || asked <= 0 {
		return s.limits.review
	}
	return min(asked, s.limits.review)
}

// answer is a ResponseWriter that knows whether its head has been sent, and that adds
// "Connection: close" to it if the connection is not to be used again. It decides at
// the last moment, so that a request that was in flight when the drain began says so
// too. It has no Unwrap: a head sent past it would be unknown to it.
type answer struct {
	http.ResponseWriter
	last func() bool
	sent bool
}

// WriteHeader sends the head.
func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK && !a.sent { // 1xx are no answers
		a.sent = true
		if a.last() {
			a.Header().Set("Connection", "close")
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write sends the head, if that is still to do, and a piece of the body.
func (a *answer) Write(p []byte) (int, error) {
	if !a.sent {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// What the checkers answer with; errors.Is finds them.
var (
	// ErrNotStarted says that the address is not bound yet.
	ErrNotStarted = errors.New("the webhook server has not started")
	// ErrDraining says that the server still serves, and is about to stop.
	ErrDraining = errors.New("the webhook server is draining")
	// ErrStopped says that the server has stopped.
	ErrStopped = errors.New("the webhook server has stopped")
)

// dialTimeout bounds the handshake of StartedChecker. A kubelet's probe waits 1 s by
// default; more would only pile up probes.
const dialTimeout = time.Second

// ReadyChecker returns a check for /readyz: nil from the moment that the address is
// bound until the context of Start ends, else ErrNotStarted, ErrDraining or
// ErrStopped. It reads two variables and never blocks, so that a flood of
// connections cannot make the guard unready. The request may be nil.
func (s *Server) ReadyChecker() healthz.Checker {
	return func(*http.Request) error { return s.state() }
}

// StartedChecker returns a check that makes a TLS handshake with the server itself:
// the proof for a startup probe that port and certificate work. It is bounded by 1 s
// and by the request's context (the request may be nil), and concurrent calls do not
// wait for each other. It passes while the server drains. Where callers must present a
// certificate, it is the certificate of the server that is proven, and no more. As it needs a free
// connection, it is no liveness check: a flood would have the process killed.
func (s *Server) StartedChecker() healthz.Checker {
	return func(r *http.Request) error {
		ctx := context.Background()
		if r != nil {
			ctx = r.Context()
		}
		if err := s.state(); err != nil && !errors.Is(err, ErrDraining) {
			return err
		}
		return s.shakeHands(ctx)
	}
}

// state is nil while the server serves and is to go on serving. It looks at the
// channel of Start's context itself: a flag that a goroutine sets on its end would
// be late by the time that goroutine takes to wake up.
func (s *Server) state() error {
	r := s.run.Load()
	if r == nil {
		return ErrNotStarted
	}
	if s.stopped.Load() {
		return ErrStopped
	}
	select {
	case <-r.cancel:
		return ErrDraining
	default:
		return nil
	}
}

// shakeHands dials the server's own address. An unspecified one ("[::]:9443") reaches
// the local machine, says package net.
func (s *Server) shakeHands(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The question is whether the server answers, not who it is: its names are
		// those of a Service, and no byte is sent to it.
		InsecureSkipVerify: true, //nolint:gosec // see above
	}}
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr().String())
	if err != nil {
		return fmt.Errorf("reach the webhook server at %s: %w", s.Addr(), err)
	}
	// Errors of Close say that the other end was quicker, which is no fault.
	_ = conn.Close()
	return nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package server serves the guard's admission webhooks over TLS: bounded in time,
// size and number, and stopped without losing an answer.
//
// It takes the place of controller-runtime's webhook server, whose request
// contexts end at SIGTERM, which closes its port at once, bounds neither reading
// nor writing, and closes idle connections at the same moment as the API server.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// ErrAlreadyStarted is what Start returns when it is called a second time.
var ErrAlreadyStarted = errors.New("the server has already been started: make a new one with New")

// Server is a TLS server for admission webhooks. It implements the Server interface
// of controller-runtime's webhook package, and also runs without a manager. New makes
// one; the zero value is not usable. Its methods may be called concurrently; Start
// works once.
type Server struct {
	opts        Options
	mux         *http.ServeMux
	connections *connections
	rooms       *rooms
	slots       chan struct{} // one element per request in a handler
	noise       *boundedLog   // for lines that strangers on the network can cause
	listening   chan struct{} // closed once run is set
	started     atomic.Bool
	stopped     atomic.Bool
	run         atomic.Pointer[run]

	// after stands for time.After, so that a test can end a drain period.
	after func(time.Duration) <-chan time.Time
}

// run is what is known of a server once it has bound its address.
type run struct {
	addr   net.Addr
	cancel <-chan struct{} // closed when the server is to stop
}

// New returns a Server that is not yet started. Its error wraps ErrInvalidOptions.
func New(opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return &Server{
		opts:        opts,
		mux:         http.NewServeMux(),
		connections: newConnections(opts.MaxConnections),
		rooms:       newRooms(opts),
		slots:       make(chan struct{}, opts.MaxInFlight),
		noise:       &boundedLog{log: opts.Log},
		listening:   make(chan struct{}),
		after:       time.After,
	}, nil
}

// NeedLeaderElection is false: every replica serves.
func (s *Server) NeedLeaderElection() bool { return false }

// Register makes hook serve path, a pattern of http.ServeMux. It panics if the path
// is taken. The hook gets the ResponseWriter's three methods and no more: no
// Flusher, no Hijacker.
func (s *Server) Register(path string, hook http.Handler) { s.mux.Handle(path, hook) }

// WebhookMux returns the mux behind Register.
func (s *Server) WebhookMux() *http.ServeMux { return s.mux }

// Listening is closed once the address is bound. It stays open if Start fails.
func (s *Server) Listening() <-chan struct{} { return s.listening }

// Addr returns the bound address, and nil until Listening is closed.
func (s *Server) Addr() net.Addr {
	if r := s.run.Load(); r != nil {
		return r.addr
	}
	return nil
}

// Closed returns how many connections were closed so far to make room for others.
func (s *Server) Closed() int {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	return s.connections.closed
}

// Start serves until ctx ends, then drains, and returns nil when every accepted
// request has had its answer:
//
//  1. At once, ReadyChecker fails, so that a Service sends no new connections.
//  2. For Options.DrainPeriod all requests are still served, and each answer says
//     "Connection: close": a client moves to another replica between two requests.
//  3. The port is closed, and requests in a handler get Options.ShutdownTimeout.
//
// The context of a request has the values of ctx and not its end, so a review that
// is under way at SIGTERM can still be recorded. Start returns an error that names
// the address if it cannot be bound (errors.Is finds the system's error), one that
// wraps context.DeadlineExceeded if requests were cut at the end, and
// ErrAlreadyStarted on a second call.
func (s *Server) Start(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return ErrAlreadyStarted
	}
	defer s.noise.flush()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("bind webhook address %q: %w: free the address, or listen on another", s.opts.Listen, err)
	}
	defer s.stopped.Store(true)

	s.run.Store(&run{addr: listener.Addr(), cancel: ctx.Done()})
	close(s.listening)
	srv := s.httpServer(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- srv.Serve(listen(listener, s.tlsConfig(), s.opts.HandshakeTimeout, guests{s.connections, s.noise}))
	}()
	s.opts.Log.InfoContext(ctx, "serving webhooks", slog.String("address", listener.Addr().String()))
	return s.finish(ctx, srv, ended)
}

// finish sees the server through its two ways to end: of itself, which is an error,
// or drained after ctx has ended.
func (s *Server) finish(ctx context.Context, srv *http.Server, ended <-chan error) error {
	select {
	case err := <-ended:
		return s.unexpectedEnd(srv, err)
	case <-ctx.Done():
	}
	s.opts.Log.InfoContext(ctx, "draining: not ready, still serving", slog.String("period", s.opts.DrainPeriod.String()))
	if s.opts.DrainPeriod > 0 {
		select {
		case err := <-ended:
			return s.unexpectedEnd(srv, err)
		case <-s.after(s.opts.DrainPeriod):
		}
	}
	return s.shutdown(context.WithoutCancel(ctx), srv)
}

// unexpectedEnd reports that serving ended without having been asked to.
func (s *Server) unexpectedEnd(srv *http.Server, cause error) error {
	return fmt.Errorf("serve webhooks on %s: %w", s.Addr(), errors.Join(cause, srv.Close()))
}

// shutdown closes the port and waits, within bounds, for the last answers.
func (s *Server) shutdown(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ShutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down webhooks on %s within %s: %w: requests in flight were cut off, find what they wait for",
			s.Addr(), s.opts.ShutdownTimeout, errors.Join(err, srv.Close()))
	}
	s.opts.Log.InfoContext(ctx, "webhooks drained")
	return nil
}

// httpServer builds the server behind the socket.
func (s *Server) httpServer(ctx context.Context) *http.Server {
	// A Service-routed webhook is called over HTTP/1.1 anyway, and its "Connection:
	// close" is what the drain needs.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	base := context.WithoutCancel(ctx)
	return &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn,
		ConnState:         followState,
		Protocols:         protocols,
		ReadHeaderTimeout: s.opts.ReadHeaderTimeout,
		ReadTimeout:       s.opts.ReadTimeout,
		WriteTimeout:      s.opts.WriteTimeout,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    s.opts.MaxHeaderBytes,
		ErrorLog:          log.New(s.noise, "", 0),
	}
}

// tlsConfig needs no cipher suites: those of TLS 1.3 are not configurable. Every API
// server since 1.19 (built with Go 1.12 or later) speaks TLS 1.3.
func (s *Server) tlsConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: s.opts.GetCertificate,
	}
	if s.opts.ClientCAs == nil {
		return config
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	if s.opts.ClientCertOptional {
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A resumed session would not look at the authorities of now.
	config.SessionTicketsDisabled = true
	base := config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := base.Clone()
		current.ClientCAs = s.opts.ClientCAs()
		return current, nil
	}
	return config
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package server serves the guard's admission webhook over TLS, bounded in time, size and number. It stops without losing an answer.
//
// controller-runtime's webhook server does not fit: its request contexts end at SIGTERM, it closes its port at once, it bounds
// neither reading nor writing, and it closes idle connections at the same moment as the API server.
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

// The reasons of Ready.
var (
	errNotStarted = errors.New("the webhook server has not started")
	errDraining   = errors.New("the webhook server is draining")
	errStopped    = errors.New("the webhook server has stopped")
)

// Server is a TLS server for admission webhooks. New makes one. Its methods may be called concurrently; Start works once.
type Server struct {
	opts        Options
	limits      limits
	connections *connections
	rooms       *rooms
	slots       chan struct{} // one element per request in a handler
	noise       *boundedLog
	listening   chan struct{} // closed once run is set
	stopped     atomic.Bool
	refused     atomic.Int64
	run         atomic.Pointer[run]

	// after stands for time.After, so that a test can end a drain period.
	after func(time.Duration) <-chan time.Time
}

// run is what is known of a server once it has bound its address.
type run struct {
	addr   net.Addr
	cancel <-chan struct{} // closed when the server is to stop
}

// New returns a Server that is not yet started.
func New(opts Options) *Server { return newServer(opts, defaultLimits()) }

func newServer(opts Options, limits limits) *Server {
	return &Server{
		opts:        opts,
		limits:      limits,
		connections: newConnections(limits.connections),
		rooms:       newRooms(limits),
		slots:       make(chan struct{}, limits.inFlight),
		noise:       newBoundedLog(opts.Log),
		listening:   make(chan struct{}),
		after:       time.After,
	}
}

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

// Refused returns how many requests were answered so far with 503, as too many were in flight.
func (s *Server) Refused() int { return int(s.refused.Load()) }

// Ready is a check for /readyz. It returns nil from the moment that the address is bound until the context of Start ends. It
// never blocks, so that a flood of connections cannot make the guard unready. It does not use the request.
//
// It reads the channel of Start's context itself: a flag that a goroutine sets at its end would be late.
func (s *Server) Ready(*http.Request) error {
	r := s.run.Load()
	if r == nil {
		return errNotStarted
	}
	if s.stopped.Load() {
		return errStopped
	}
	select {
	case <-r.cancel:
		return errDraining
	default:
		return nil
	}
}

// Start serves until ctx ends, then drains, and returns nil when every accepted request has its answer:
//
//  1. At once, Ready fails, so that a Service sends no new connections.
//  2. For Options.DrainPeriod all requests are still served, and each answer says "Connection: close": a client moves to another
//     replica between two requests.
//  3. The port is closed, and requests in a handler get ShutdownTimeout.
//
// The context of a request has the values of ctx and not its end, so that a review that is under way at SIGTERM can still be
// recorded. The error names an address that cannot be bound, or wraps context.DeadlineExceeded if requests were cut at the end.
func (s *Server) Start(ctx context.Context) error {
	defer s.noise.flush()
	listener, err := bind(ctx, s.opts.Listen)
	if err != nil {
		return err
	}
	defer s.stopped.Store(true)

	s.run.Store(&run{addr: listener.Addr(), cancel: ctx.Done()})
	close(s.listening)
	srv := s.httpServer(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- srv.Serve(listen(listener, s.tlsConfig(), s.limits.handshake, guests{s.connections, s.noise}))
	}()
	s.opts.Log.InfoContext(ctx, "serving webhooks", slog.String("address", listener.Addr().String()))
	return s.finish(ctx, srv, ended)
}

func bind(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("bind address %q: %w: free the address, or listen on another", address, err)
	}
	return listener, nil
}

// finish returns when serving has failed, or when the server is drained after the end of ctx.
func (s *Server) finish(ctx context.Context, srv *http.Server, ended <-chan error) error {
	draining := ctx.Done()
	var drained <-chan time.Time
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("serve webhooks on %s: %w", s.Addr(), errors.Join(err, srv.Close()))
		case <-draining:
			s.opts.Log.InfoContext(ctx, "draining: not ready, still serving", slog.String("period", s.opts.DrainPeriod.String()))
			draining, drained = nil, s.after(s.opts.DrainPeriod)
		case <-drained:
			return s.shutdown(context.WithoutCancel(ctx), srv)
		}
	}
}

// shutdown closes the port and waits, within bounds, for the last answers.
func (s *Server) shutdown(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.shutdown)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("shut down webhooks on %s within %s: %w: requests in flight were cut off, find what they wait for",
			s.Addr(), s.limits.shutdown, errors.Join(err, srv.Close()))
	}
	s.opts.Log.InfoContext(ctx, "webhooks drained")
	return nil
}

func (s *Server) httpServer(ctx context.Context) *http.Server {
	// The API server calls a webhook behind a Service over HTTP/1.1 anyway, and its "Connection: close" is what the drain needs.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	base := context.WithoutCancel(ctx)
	return &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn,
		ConnState:         followState,
		Protocols:         protocols,
		ReadHeaderTimeout: s.limits.readHeader,
		ReadTimeout:       s.limits.read,
		WriteTimeout:      s.limits.write,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    s.limits.headBytes,
		ErrorLog:          log.New(s.noise, "", 0),
	}
}

// tlsConfig sets no cipher suites: those of TLS 1.3 are not configurable. Every API server since 1.19 speaks TLS 1.3.
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
	// A resumed session would skip the check against the current CAs.
	config.SessionTicketsDisabled = true
	base := config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := base.Clone()
		current.ClientCAs = s.opts.ClientCAs()
		return current, nil
	}
	return config
}

const (
	// plainConnections is the number of open connections of a plain server: a kubelet and a Prometheus use one each.
	plainConnections = 128
	// plainTimeout bounds a request and its answer: a kubelet's probe waits 1 s, a Prometheus 10 s.
	plainTimeout = 10 * time.Second
)

// Plain serves probes or metrics without TLS. Any client can reach its address: it bounds what clients can take, and a slow one makes
// room for a new one. (controller-runtime's servers bound neither connections nor, below 1 MiB, the head of a request.)
type Plain struct {
	server   *http.Server
	listener net.Listener
}

// NewPlain binds the address. The handler must not read bodies.
func NewPlain(ctx context.Context, address string, handler http.Handler, logger *slog.Logger) (*Plain, error) {
	inner, err := bind(ctx, address)
	if err != nil {
		return nil, err
	}
	noise, limits := newBoundedLog(logger), defaultLimits()
	return &Plain{
		listener: listen(inner, nil, plainTimeout, guests{newConnections(plainConnections), noise}),
		server: &http.Server{
			Handler:           handler,
			ConnState:         followState,
			ReadHeaderTimeout: plainTimeout,
			ReadTimeout:       plainTimeout,
			WriteTimeout:      plainTimeout,
			IdleTimeout:       limits.idle,
			MaxHeaderBytes:    limits.headBytes,
			ErrorLog:          log.New(noise, "", 0),
		},
	}, nil
}

// Serve returns nil after ctx has ended. Call it once, as it closes the port.
func (p *Plain) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.server.Close() })
	defer stop()
	err := p.server.Serve(p.listener)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", p.listener.Addr(), err)
}

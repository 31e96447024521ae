// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"
)

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

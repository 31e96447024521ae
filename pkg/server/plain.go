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
	// plainConnections is the number of open connections of a Plain: a kubelet and a Prometheus use one each.
	plainConnections = 128
	// plainTimeout bounds a request and its answer: a kubelet's probe waits 1 s, a Prometheus 10 s.
	plainTimeout = 10 * time.Second
)

// Plain serves probes or metrics without TLS, to anybody who can reach the address: it bounds what they can take, and a slow
// client makes room for a new one.
type Plain struct {
	Server   *http.Server
	Listener net.Listener
}

// NewPlain binds the address, and serves nothing until Server.Serve is called with Listener. Handlers must not read bodies.
// The error names the address.
func NewPlain(ctx context.Context, address string, handler http.Handler, logger *slog.Logger) (*Plain, error) {
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("bind address %q: %w: free the address, or listen on another", address, err)
	}
	noise := &boundedLog{log: logger}
	return &Plain{
		Listener: listen(inner, nil, plainTimeout, guests{newConnections(plainConnections), noise}),
		Server: &http.Server{
			Handler:           handler,
			ConnState:         followState,
			ReadHeaderTimeout: plainTimeout,
			ReadTimeout:       plainTimeout,
			WriteTimeout:      plainTimeout,
			IdleTimeout:       DefaultIdleTimeout,
			MaxHeaderBytes:    DefaultMaxHeaderBytes,
			ErrorLog:          log.New(noise, "", 0),
		},
	}, nil
}

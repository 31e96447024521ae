// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// acceptPause is the pause after an Accept that failed, such as for want of a file descriptor.
const acceptPause = 5 * time.Millisecond

// guests are the connections of a listener, and the log of their errors.
type guests struct {
	table *connections
	noise *boundedLog
}

// listener accepts connections without waiting for a client: each has a goroutine for its handshake, and Accept returns those that
// are done.
type listener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration // of a handshake
	guests

	ready chan *conn
	close func()
	ended chan struct{}
}

// listen starts to accept connections of the inner listener, with TLS if config is not nil. The caller closes the returned one.
func listen(inner net.Listener, config *tls.Config, timeout time.Duration, guests guests) *listener {
	ended := make(chan struct{})
	l := &listener{
		Listener: inner, config: config, timeout: timeout, guests: guests,
		ready: make(chan *conn), ended: ended, close: sync.OnceFunc(func() { close(ended) }),
	}
	go l.run()
	return l
}

// Accept returns the next connection, within the limits.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Close ends run, and every handshake that is under way.
func (l *listener) Close() error {
	l.close()
	return l.Listener.Close()
}

// run ends when the listener is closed.
func (l *listener) run() {
	for {
		raw, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			l.close()
			return
		case err != nil:
			l.noise.warn("failed to accept a connection", slog.Any("err", err))
			l.table.makeRoom()
			time.Sleep(acceptPause)
			continue
		}
		c := newConn(raw, l.config, l.table)
		if !l.table.add(c) {
			l.noise.warn("connection refused: all are in use", slog.Int("limit", l.table.max))
			c.cut()
			continue
		}
		go l.welcome(c)
	}
}

// welcome passes c to Accept after its handshake, or closes it if that takes too long.
func (l *listener) welcome(c *conn) {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	if err := c.shakeHands(ctx); err != nil {
		l.table.remove(c)
		c.cut()
		l.noise.warn("TLS handshake failed", slog.String("client", c.RemoteAddr().String()),
			slog.String("err", text.Printable(err.Error(), noiseBytes)))
		return
	}
	select {
	case l.ready <- c:
	case <-l.ended:
		_ = c.Close()
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// acceptPause is the pause after an Accept that failed, such as for want of a file descriptor.
const acceptPause = 5 * time.Millisecond

// guests are the connections of a listener, and the log of their errors.
type guests struct {
	table *connections
	noise *boundedLog
}

// listener accepts connections without waiting for a client: each handshake has a goroutine, and Accept returns those that are done.
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

const (
	// noiseLines is how many lines clients may cause at once, and per noiseWindow. A port scanner causes thousands.
	noiseLines  = 10
	noiseWindow = time.Minute
	// noiseBytes bounds the text of one line: a TLS error repeats what the client sent, such as 64 KiB of protocol names.
	noiseBytes = 512
)

// boundedLog writes the lines that any client on the network can cause, within bounds, and counts those that it leaves out. It is
// an io.Writer for the log.Logger of net/http. Safe for concurrent use.
type boundedLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	dropped atomic.Int64
}

func newBoundedLog(log *slog.Logger) *boundedLog {
	return &boundedLog{log: log, limit: rate.NewLimiter(rate.Every(noiseWindow/noiseLines), noiseLines)}
}

// Write logs one line of net/http, which is about a connection, never about a body.
func (b *boundedLog) Write(p []byte) (int, error) {
	b.warn("http server", slog.String("err", text.Printable(strings.TrimSpace(string(p)), noiseBytes)))
	return len(p), nil
}

func (b *boundedLog) warn(msg string, attrs ...slog.Attr) {
	if !b.limit.Allow() {
		b.dropped.Add(1)
		return
	}
	b.flush()
	b.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...) //nolint:sloglint // the callers' messages are constants
}

// flush logs how many lines were left out since the last flush.
func (b *boundedLog) flush() {
	if dropped := b.dropped.Swap(0); dropped > 0 {
		b.log.Warn("connection errors left out of the log", slog.Int64("count", dropped))
	}
}

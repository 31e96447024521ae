// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

const (
	// maxHelloBytes bounds a client's bytes until its handshake is done: 2 KiB and client certificates. crypto/tls alone keeps 64 KiB.
	maxHelloBytes = 16 << 10
	// maxHeadLines bounds the lines of a head. The API server sends ten. net/http keeps each: empty fields take thirty times their size.
	maxHeadLines = 64
	// receiveBuffer bounds what the kernel keeps for a connection in the container's memory. It allows 60 MB/s at a round trip of 1 ms.
	receiveBuffer = 64 << 10
)

// conn is a connection in the table. As net/http does not take it for a TLS connection, the server sets Request.TLS.
type conn struct {
	net.Conn           // secure, or raw where that is nil
	secure   *tls.Conn // nil for a connection without TLS
	raw      *hello
	table    *connections
	source   netip.Prefix

	// Guarded by table.mu.
	isOpen bool
	queue  *queue
	place  *list.Element
	turn   uint64 // in the queue

	mu   sync.Mutex
	head head
}

// newConn returns a connection without TLS if config is nil.
func newConn(raw net.Conn, config *tls.Config, table *connections) *conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(receiveBuffer) // else the kernel's own bound holds
	}
	c := &conn{table: table, source: sourceOf(raw.RemoteAddr())}
	c.raw = &hello{Conn: raw, left: maxHelloBytes, heard: func() { table.heard(c) }}
	if config == nil {
		c.raw.done = true
		c.Conn = c.raw
		return c
	}
	c.secure = tls.Server(c.raw, config)
	c.Conn = c.secure
	return c
}

// shakeHands returns once the handshake is done, or ctx has ended.
func (c *conn) shakeHands(ctx context.Context) error {
	if c.secure == nil {
		return nil
	}
	if err := c.secure.HandshakeContext(ctx); err != nil {
		return err
	}
	c.raw.done = true
	return nil
}

// Read refuses a head of too many lines.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.head.read(p[:n]) {
		return 0, errors.New("the head of the request has too many lines")
	}
	return n, err
}

// Close ends the connection, and what is kept for it.
func (c *conn) Close() error {
	c.table.remove(c)
	return c.Conn.Close()
}

// CloseWrite ends the answers of a TLS connection. Without TLS, only Close does.
func (c *conn) CloseWrite() error {
	if c.secure == nil {
		return nil
	}
	return c.secure.CloseWrite()
}

// cut closes the connection without a TLS alert, which could block. It does nothing for nil.
func (c *conn) cut() {
	if c != nil {
		_ = c.raw.Close()
	}
}

// answered makes the connection ready for the next head.
func (c *conn) answered() {
	c.mu.Lock()
	c.head = head{}
	c.mu.Unlock()
	c.table.answered(c)
}

// isPipelined reports whether the client sent more than the head and a body of that length; true for an unknown length, below zero.
func (c *conn) isPipelined(length int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return length < 0 || c.head.total > c.head.length+length
}

// hello bounds the bytes of a handshake.
type hello struct {
	net.Conn
	heard func() // called for each read of bytes
	left  int
	done  bool
}

func (h *hello) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.heard()
	}
	if h.done {
		return n, err
	}
	if h.left -= n; h.left < 0 {
		return 0, errors.New("the client sent more than a TLS handshake takes")
	}
	return n, err
}

// head counts the lines of a request's head while it comes, up to the empty line.
type head struct {
	total  int64 // bytes of the request that came
	length int64 // bytes of the head
	lines  int
	line   int // bytes of the current line
	done   bool
}

// read takes the next bytes, and reports whether the head still has few enough lines.
func (h *head) read(p []byte) bool {
	h.total += int64(len(p))
	for _, b := range p {
		if h.done {
			break
		}
		h.length++
		switch {
		case b == '\n' && h.line == 0 && h.lines > 0:
			h.done = true
		case b == '\n':
			h.lines, h.line = h.lines+1, 0
		case b != '\r':
			h.line++
		}
	}
	return h.lines <= maxHeadLines
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// connOf returns the connection of a request, or nil for a request without one, as in a test.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// followState is net/http's ConnState: it notes idle connections.
func followState(c net.Conn, state http.ConnState) {
	if own, ok := c.(*conn); ok && state == http.StateIdle {
		own.answered()
	}
}

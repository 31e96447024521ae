// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// giveUp ends a test that would hang; no test waits for it to pass.
const giveUp = 20 * time.Second

// harness is a server on a loopback port, and what a test needs to use it.
type harness struct {
	*Server
	Mux      *http.ServeMux
	logs     *buffer
	roots    *x509.CertPool
	cancel   context.CancelFunc // the SIGTERM
	endDrain func()             // ends the drain period
	ended    <-chan error       // what Start returned
}

// slowDrain makes the drain last until endDrain.
func slowDrain(o *Options) { o.DrainPeriod = time.Hour }

// start serves hook on /review, and stops it with the test. Limits that are zero are those of New.
func start(t *testing.T, bounds limits, hook http.Handler, change ...func(*Options)) *harness {
	t.Helper()
	certificate, roots := serving(t)
	h := &harness{logs: &buffer{}, roots: roots, Mux: http.NewServeMux()}
	h.Mux.Handle("/review", hook)
	opts := Options{
		Listen: "127.0.0.1:0", Handler: h.Mux, Log: slog.New(slog.NewJSONHandler(h.logs, nil)),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil },
	}
	for _, f := range change {
		f(&opts)
	}
	h.Server = newServer(opts, orDefault(bounds))
	drained := make(chan time.Time)
	h.after = func(period time.Duration) <-chan time.Time {
		if period == 0 {
			return time.After(0)
		}
		return drained
	}
	h.endDrain = sync.OnceFunc(func() { close(drained) })
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Start(ctx) }()
	h.ended = ended
	t.Cleanup(func() { h.cancel(); h.endDrain() })
	await(t, h.Listening(), "the bound address")
	return h
}

// orDefault fills in the limits that are zero.
func orDefault(l limits) limits {
	d := defaultLimits()
	return limits{
		handshake: cmp.Or(l.handshake, d.handshake), readHeader: cmp.Or(l.readHeader, d.readHeader), read: cmp.Or(l.read, d.read),
		review: cmp.Or(l.review, d.review), write: cmp.Or(l.write, d.write), idle: cmp.Or(l.idle, d.idle),
		shutdown: cmp.Or(l.shutdown, d.shutdown), connections: cmp.Or(l.connections, d.connections),
		inFlight: cmp.Or(l.inFlight, d.inFlight), headBytes: cmp.Or(l.headBytes, d.headBytes), bodyBytes: cmp.Or(l.bodyBytes, d.bodyBytes),
	}
}

// serving borrows the certificate of net/http/httptest, made for 127.0.0.1.
func serving(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	lender := httptest.NewTLSServer(nil)
	defer lender.Close()
	roots := x509.NewCertPool()
	roots.AddCert(lender.Certificate())
	return &lender.TLS.Certificates[0], roots
}

// client returns a client with connections of its own. It never dials twice for one
// request, as Go's transport sends no POST again.
func (h *harness) client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: h.tlsConfig(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: giveUp}
}

func (h *harness) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "127.0.0.1"}
}

// dial opens a raw TLS connection, closed with the test.
func (h *harness) dial(t *testing.T) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", h.Addr().String(), h.tlsConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(giveUp)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialSilently opens a TCP connection, closed with the test.
func (h *harness) dialSilently(t *testing.T) net.Conn {
	t.Helper()
	return h.dialFrom(t, "127.0.0.1")
}

// dialFrom is dialSilently from another address of this machine.
func (h *harness) dialFrom(t *testing.T, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(giveUp)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// reply is what a client saw of an answer.
type reply struct {
	status int
	closes bool
	body   string
	err    error
}

// post sends body to /review with the given query.
func (h *harness) post(client *http.Client, query, body string) reply {
	resp, err := client.Post("https://"+h.Addr().String()+"/review"+query, "application/json", strings.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return reply{status: resp.StatusCode, closes: resp.Close, body: string(text), err: err}
}

// postAsync posts in the background.
func (h *harness) postAsync(client *http.Client) <-chan reply {
	out := make(chan reply, 1)
	go func() { out <- h.post(client, "", "") }()
	return out
}

// await receives from ch, or fails the test.
func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(giveUp):
		t.Fatalf("still waiting for %s", what)
		panic("unreachable")
	}
}

// buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ok answers 200 with a word.
func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

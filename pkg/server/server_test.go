// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

func TestTheIdleTimeoutIsLongerThanThatOfTheAPIServersClient(t *testing.T) {
	// The API server's transport takes its timeout from net/http's.
	client := http.DefaultTransport.(*http.Transport).IdleConnTimeout
	if idle := defaultLimits().idle; idle <= client {
		t.Errorf("idle timeout %s is not above the client's %s", idle, client)
	}
}

func TestOnlyTLS13AndHTTP11AreSpoken(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(ok))
	cases := map[string]struct {
		maxVersion uint16
		offer      []string
		refused    bool
		want       string
	}{
		"TLS 1.2 is refused":                             {maxVersion: tls.VersionTLS12, refused: true},
		"TLS 1.3 without a protocol name is served":      {maxVersion: tls.VersionTLS13},
		"who offers HTTP/2 and HTTP/1.1 gets HTTP/1.1":   {maxVersion: tls.VersionTLS13, offer: []string{"h2", "http/1.1"}, want: "http/1.1"},
		"who offers HTTP/2 only is refused at handshake": {maxVersion: tls.VersionTLS13, offer: []string{"h2"}, refused: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config := h.tlsConfig()
			config.MinVersion, config.MaxVersion, config.NextProtos = tls.VersionTLS12, tc.maxVersion, tc.offer
			conn, err := tls.Dial("tcp", h.Addr().String(), config)
			if tc.refused {
				var alert *net.OpError
				if !errors.As(err, &alert) || alert.Op != "remote error" {
					t.Fatalf("handshake: error %v, want the server's TLS alert", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if got := conn.ConnectionState().NegotiatedProtocol; got != tc.want {
				t.Errorf("protocol %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAClientThatKeepsTheServerWaitingIsCut(t *testing.T) {
	// Short for a client that waits for it, and long enough for one that shakes hands on a busy machine.
	const short = 2 * time.Second
	cases := map[string]struct {
		limits limits
		send   string
	}{
		"in the head of a request": {limits{readHeader: short}, "POST /review HTTP/1.1\r\nHost: x\r\n"},
		"in the body of a request": {limits{read: short}, "POST /review HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"},
		"between two requests":     {limits{idle: short}, "GET /review HTTP/1.1\r\nHost: x\r\n\r\n"},
		"by taking no answer":      {limits{write: short}, "GET /review?flood HTTP/1.1\r\nHost: x\r\n\r\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			h := start(t, patientElse(tc.limits), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.ReadAll(r.Body); err != nil {
					return
				}
				if r.URL.RawQuery == "flood" {
					failed <- flood(w)
				}
			}))
			conn := h.dial(t)
			if _, err := io.WriteString(conn, tc.send); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(tc.send, "flood") {
				if err := await(t, failed, "the end of the writing"); !isTimeout(err) {
					t.Errorf("writing ended with %v, want a timeout", err)
				}
				return
			}
			if _, err := io.ReadAll(conn); isTimeout(err) {
				t.Errorf("the connection was still open after %s", giveUp)
			}
		})
	}
}

// patientElse makes every timeout that is not set so long that the test of another one cannot meet it.
func patientElse(l limits) limits {
	l.handshake = cmp.Or(l.handshake, time.Hour)
	l.readHeader = cmp.Or(l.readHeader, time.Hour)
	l.read = cmp.Or(l.read, time.Hour)
	l.write = cmp.Or(l.write, time.Hour)
	l.idle = cmp.Or(l.idle, time.Hour)
	return l
}

func TestAClientThatNeverShakesHandsIsCut(t *testing.T) {
	h := start(t, patientElse(limits{handshake: 50 * time.Millisecond}), http.HandlerFunc(ok))
	conn := h.dialSilently(t)
	if _, err := io.ReadAll(conn); isTimeout(err) {
		t.Errorf("the connection was still open after %s", giveUp)
	}
}

// flood writes until it cannot.
func flood(w io.Writer) error {
	for {
		if _, err := w.Write(make([]byte, 1<<16)); err != nil {
			return err
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestHeadAndBodyAreBounded(t *testing.T) {
	h := start(t, limits{headBytes: 1 << 10, bodyBytes: 8}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); errors.Is(err, webhook.ErrTooLarge) {
			http.Error(w, "too long", http.StatusTeapot)
		}
	}))
	cases := map[string]struct {
		query, body string
		want        int
	}{
		"a request within the bounds is served":      {"", "12345678", http.StatusOK},
		"the handler learns that the body is longer": {"", "123456789", http.StatusTeapot},
		"a longer head does not come to the handler": {"?" + strings.Repeat("x", 8<<10), "", http.StatusRequestHeaderFieldsTooLarge},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := h.post(h.client(t), tc.query, tc.body); got.err != nil || got.status != tc.want {
				t.Errorf("answer %+v, want status %d", got, tc.want)
			}
		})
	}
}

func TestAConnectionInUseIsNotClosedForANewOne(t *testing.T) {
	hook := newBlocking()
	h := start(t, limits{connections: 1}, hook)
	inFlight := h.postAsync(h.client(t))
	await(t, hook.entered, "the request")
	if conn, err := tls.Dial("tcp", h.Addr().String(), h.tlsConfig()); err == nil {
		_ = conn.Close()
		t.Error("a second connection was served while the first was in use")
	}
	close(hook.release)
	if got := await(t, inFlight, "the answer"); got.status != http.StatusOK {
		t.Errorf("answer %+v, want 200", got)
	}
}

// However a client keeps the server waiting, any number of them leaves room for a new connection, and costs none that is used.
func TestAnyNumberOfSlowClientsLeavesRoomForANewConnection(t *testing.T) {
	const slow = 50
	cases := map[string]struct {
		silent bool
		send   string
	}{
		"before the handshake":        {silent: true},
		"after the handshake":         {},
		"in the head of a request":    {send: "POST /review HTTP/1.1\r\nHost: x\r\n"},
		"in the body of a request":    {send: "POST /review HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"},
		"in the chunks of a body":     {send: "POST /review HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"},
		"in the body of a large post": {send: "POST /review HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n1"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := start(t, patientElse(limits{connections: 8, inFlight: 1}), http.HandlerFunc(ok))
			used := h.client(t)
			if got := h.post(used, "", "x"); got.status != http.StatusOK {
				t.Fatalf("before: %+v, want 200", got)
			}
			for range slow {
				if tc.silent {
					h.dialSilently(t)
					continue
				}
				if _, err := io.WriteString(h.dial(t), tc.send); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Fatal(err)
				}
			}
			if got := h.post(h.client(t), "", "x"); got.status != http.StatusOK {
				t.Errorf("on a new connection: %+v, want 200", got)
			}
			if got := h.post(used, "", "x"); got.status != http.StatusOK {
				t.Errorf("on the used connection: %+v, want 200", got)
			}
			if h.Closed() < slow/2 {
				t.Errorf("%d connections were closed to make room, want at least %d", h.Closed(), slow/2)
			}
		})
	}
}

func TestAHeadOfManyLinesIsCut(t *testing.T) {
	h := start(t, patientElse(limits{}), http.HandlerFunc(ok))
	for name, text := range map[string]string{
		"in the first request":  "",
		"in the second request": "GET /review HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.dial(t)
			if _, err := io.WriteString(conn, text+"GET /review HTTP/1.1\r\n"+strings.Repeat("a:\n", 100)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(conn); isTimeout(err) {
				t.Errorf("the connection was still open after %s", giveUp)
			}
		})
	}
}

func TestAHelloThatIsTooLongIsCut(t *testing.T) {
	h := start(t, patientElse(limits{}), http.HandlerFunc(ok))
	conn := h.dialSilently(t)
	// Records of a ClientHello that says to have 60,000 bytes.
	record := append([]byte{22, 3, 1, 0x20, 0}, make([]byte, 0x2000)...)
	copy(record[5:], []byte{1, 0, 0xea, 0x60})
	for range 3 {
		if _, err := conn.Write(record); err != nil {
			break
		}
		record = append([]byte{22, 3, 1, 0x20, 0}, make([]byte, 0x2000)...)
	}
	if _, err := io.ReadAll(conn); isTimeout(err) {
		t.Errorf("the connection was still open after %s", giveUp)
	}
}

func TestNoMoreRequestsThanTheBoundAreHandled(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := start(t, limits{inFlight: 1}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	first := h.postAsync(h.client(t))
	await(t, entered, "the first request")
	if got := h.post(h.client(t), "?timeout=100ms", ""); got.status != http.StatusServiceUnavailable || got.body == "" {
		t.Errorf("with no slot free: %+v, want 503 and a text", got)
	}
	if got := h.Refused(); got != 1 {
		t.Errorf("%d requests refused, want 1", got)
	}
	second := h.postAsync(h.client(t))
	release <- struct{}{}
	await(t, entered, "the second request, once the first is done")
	release <- struct{}{}
	for _, ch := range []<-chan reply{first, second} {
		if got := await(t, ch, "an answer"); got.status != http.StatusOK {
			t.Errorf("answer %+v, want 200", got)
		}
	}
}

func TestAnAddressThatCannotBeBoundIsAnErrorThatNamesIt(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(ok))
	second := New(Options{Listen: h.Addr().String(), Log: slog.New(slog.DiscardHandler)})
	err := second.Start(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), h.Addr().String()) {
		t.Errorf("Start: %v, want EADDRINUSE and the address", err)
	}
	if second.Addr() != nil {
		t.Errorf("Addr %s, want nil", second.Addr())
	}
	if err := second.Ready(nil); !errors.Is(err, errNotStarted) {
		t.Errorf("ready: %v, want ErrNotStarted", err)
	}
}

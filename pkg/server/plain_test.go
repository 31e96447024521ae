// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/server"
)

func TestAPlainServerAnswersUnderAnyNumberOfSlowClients(t *testing.T) {
	plain, err := server.NewPlain(t.Context(), "127.0.0.1:0", http.HandlerFunc(ok), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = plain.Server.Serve(plain.Listener) }()
	t.Cleanup(func() { _ = plain.Server.Close() })
	address := plain.Listener.Addr().String()
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		for range 300 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, text); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: giveUp}).Get("http://" + address + "/")
		if err != nil {
			t.Errorf("after clients that send %q: %v", text, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("after clients that send %q: status %d, want 200", text, resp.StatusCode)
		}
	}
}

func TestAPlainServersAddressIsNamedIfItCannotBeBound(t *testing.T) {
	plain, err := server.NewPlain(t.Context(), "127.0.0.1:0", http.HandlerFunc(ok), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Listener.Close() })
	if _, err := server.NewPlain(t.Context(), plain.Listener.Addr().String(), nil, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

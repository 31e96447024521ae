// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"
)

func TestAPlainServerAnswersUnderAnyNumberOfSlowClients(t *testing.T) {
	plain, err := NewPlain(t.Context(), "127.0.0.1:0", http.HandlerFunc(ok), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = plain.Serve(t.Context()) }()
	address := plain.listener.Addr().String()
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
	plain, err := NewPlain(t.Context(), "127.0.0.1:0", http.HandlerFunc(ok), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.listener.Close() })
	if _, err := NewPlain(t.Context(), plain.listener.Addr().String(), nil, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

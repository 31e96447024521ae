// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodOfConnectionErrorsIsCountedNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		noise := newBoundedLog(slog.New(slog.NewJSONHandler(&out, nil)))
		burst := func(n int) string {
			out.Reset()
			for range n {
				fmt.Fprintf(noise, "http: TLS handshake error from 192.0.2.1:1: EOF\n")
			}
			return out.String()
		}
		if got := strings.Count(burst(1000), "TLS handshake"); got != noiseLines {
			t.Errorf("first burst: %d lines, want %d", got, noiseLines)
		}
		time.Sleep(noiseWindow/noiseLines - 1)
		if got := burst(5); got != "" {
			t.Errorf("just before the next line: %q, want nothing", got)
		}
		time.Sleep(time.Nanosecond)
		want := fmt.Sprintf(`"count":%d`, 1000-noiseLines+5)
		if got := burst(1); !strings.Contains(got, want) || !strings.Contains(got, "TLS handshake") {
			t.Errorf("next line: %q, want %s and the line", got, want)
		}
		time.Sleep(noiseWindow)
		burst(noiseLines + 2)
		out.Reset()
		noise.flush()
		noise.flush()
		if got := out.String(); strings.Count(got, `"count":2`) != 1 {
			t.Errorf("flush: %q, want the count of 2, once", got)
		}
	})
}

func TestALineOfForeignTextIsBounded(t *testing.T) {
	var out bytes.Buffer
	noise := newBoundedLog(slog.New(slog.NewJSONHandler(&out, nil)))
	line := strings.Repeat("é", noiseBytes)
	if n, err := noise.Write([]byte(line)); n != len(line) || err != nil {
		t.Errorf("Write: %d, %v, want %d bytes taken", n, err, len(line))
	}
	if got := strings.Count(out.String(), "é"); got != (noiseBytes-12)/2 {
		t.Errorf("%d characters logged, want %d", got, (noiseBytes-12)/2)
	}
}

func TestARequestWaitsForASlotForHalfOfItsTimeout(t *testing.T) {
	cases := map[string]struct {
		query string
		free  time.Duration // when the slot becomes free
		want  int
	}{
		"a slot just before the half is taken":      {"?timeout=4s", 2*time.Second - 1, http.StatusOK},
		"a slot just after the half is too late":    {"?timeout=4s", 2*time.Second + 1, http.StatusServiceUnavailable},
		"without a timeout the server's own counts": {"", 3*time.Second - 1, http.StatusOK},
		"and no longer": {"", 3*time.Second + 1, http.StatusServiceUnavailable},
		"a longer timeout is cut to the server's":       {"?timeout=1h", 3*time.Second + 1, http.StatusServiceUnavailable},
		"a negative timeout counts as none":             {"?timeout=-1s", 3*time.Second - 1, http.StatusOK},
		"a timeout that cannot be read counts as none":  {"?timeout=soon", 3*time.Second - 1, http.StatusOK},
		"a query without a timeout is as no query":      {"?x=1", 3*time.Second + 1, http.StatusServiceUnavailable},
		"a timeout of zero does not refuse the request": {"?timeout=0s", 3*time.Second - 1, http.StatusOK},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := bare(limits{inFlight: 1, review: 6 * time.Second}, ok)
				s.slots <- struct{}{}
				go func() {
					time.Sleep(tc.free)
					<-s.slots
				}()
				got := httptest.NewRecorder()
				s.handler().ServeHTTP(got, httptest.NewRequest(http.MethodPost, "/review"+tc.query, http.NoBody))
				if got.Code != tc.want {
					t.Errorf("status %d, want %d", got.Code, tc.want)
				}
				time.Sleep(tc.free) // the bubble must end empty
			})
		})
	}
}

func TestAHandlersContextEndsWithTheCallersTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		s := bare(limits{}, func(_ http.ResponseWriter, r *http.Request) {
			deadline, _ := r.Context().Deadline()
			left = time.Until(deadline)
		})
		s.handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/deadline?timeout=5s", http.NoBody))
		if left != 5*time.Second {
			t.Errorf("the deadline is %s away, want 5s", left)
		}
	})
}

// bare returns a server without a socket.
func bare(bounds limits, hook http.HandlerFunc) *Server {
	return newServer(Options{Handler: hook, Log: slog.New(slog.DiscardHandler)}, orDefault(bounds))
}

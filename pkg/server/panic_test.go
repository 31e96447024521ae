// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAPanicCostsOneRequestOnly(t *testing.T) {
	const secret = "canary-from-a-secret"
	cases := map[string]struct {
		hook    http.HandlerFunc
		status  int // 0: the connection is cut
		logged  int
		logText string
	}{
		"before the answer it becomes a 500": {
			hook:   func(http.ResponseWriter, *http.Request) { panic(secret) },
			status: http.StatusInternalServerError, logged: 1, logText: "type string",
		},
		"within the answer it cuts the connection": {
			hook: func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "half an answer")
				panic(secret)
			},
			logged: 1, logText: "type string",
		},
		"of the runtime it is logged in its own words": {
			hook:   func(_ http.ResponseWriter, r *http.Request) { r.Header = nil; r.Header["x"] = nil },
			status: http.StatusInternalServerError, logged: 1, logText: "nil map",
		},
		"that asks for an abort is silent": {
			hook: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := start(t, limits{inFlight: 1}, tc.hook)
			h.Mux.HandleFunc("/next", ok)
			got := h.post(h.client(t), "", "")
			if (tc.status == 0) != (got.err != nil) || (tc.status != 0 && got.status != tc.status) {
				t.Errorf("answer %+v, want status %d", got, tc.status)
			}
			resp, err := h.client(t).Get("https://" + h.Addr().String() + "/next?timeout=1s")
			if err != nil {
				t.Fatalf("the next request, in the slot that the panic freed: %v", err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("the next request: status %d, want 200", resp.StatusCode)
			}
			logs := h.logs.String()
			if n := strings.Count(logs, "panicked"); n != tc.logged || strings.Count(logs, `"stack"`) != tc.logged {
				t.Errorf("%d lines about the panic, want %d with a stack:\n%s", n, tc.logged, logs)
			}
			if !strings.Contains(logs, tc.logText) || strings.Contains(logs+got.body, secret) {
				t.Errorf("log must say %q and never the value:\n%s", tc.logText, logs)
			}
		})
	}
}

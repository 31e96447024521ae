// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answers plays one result after the other, and the last one for ever.
type answers struct {
	results []any // a status code, a response's body, or an error
	bodies  []string
}

func (a *answers) RoundTrip(request *http.Request) (*http.Response, error) {
	body := ""
	if request.Body != nil {
		data, _ := io.ReadAll(request.Body)
		body = string(data)
	}
	a.bodies = append(a.bodies, body)
	result := a.results[min(len(a.bodies), len(a.results))-1]
	response := &http.Response{StatusCode: http.StatusInternalServerError, Body: io.NopCloser(strings.NewReader("body"))}
	switch result := result.(type) {
	case error:
		return nil, result
	case int:
		response.StatusCode = result
	case string:
		response.Body = io.NopCloser(strings.NewReader(result))
	}
	return response, nil
}

func TestRequestsAreRepeatedOnlyAfterTransientErrors(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, test := range map[string]struct {
		results []any
		tries   int // -1 for until the time is over
		code    int // of the last answer; 0 for an error
	}{
		"success":                   {[]any{200}, 1, 200},
		"a refused connection":      {[]any{refused, refused, 200}, 3, 200},
		"a reset connection":        {[]any{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, 200}, 2, 200},
		"no route":                  {[]any{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, 200}, 2, 200},
		"no DNS":                    {[]any{&net.DNSError{Err: "no such host", IsNotFound: true}, 200}, 2, 200},
		"a closed connection":       {[]any{io.EOF, 200}, 2, 200},
		"too many requests":         {[]any{429, 200}, 2, 200},
		"an API server that starts": {[]any{503, 500, 504, 200}, 4, 200},
		"no credentials":            {[]any{401}, 1, 401},
		"no permission":             {[]any{403}, 1, 403},
		"not found":                 {[]any{404}, 1, 404},
		"an invalid object":         {[]any{422}, 1, 422},
		"a webhook that fails":      {[]any{`failed calling webhook "x"`}, 1, 500},
		"another error":             {[]any{errors.New("x509: certificate signed by unknown authority")}, 1, 0},
		"refused for ever":          {[]any{refused}, -1, 0},
		"unavailable for ever":      {[]any{503}, -1, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				api, said, began := &answers{results: test.results}, 0, time.Now()
				r := &retrier{next: api, until: began.Add(time.Minute), say: func(string) { said++ }}
				request := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "http://x", nil)
				request.Body, request.GetBody = io.NopCloser(strings.NewReader("patch")), func() (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader("patch")), nil
				}
				response, err := r.RoundTrip(request)
				if err == nil {
					defer func() { _ = response.Body.Close() }()
				}
				if (err == nil) != (test.code != 0) || err == nil && response.StatusCode != test.code {
					t.Errorf("got %v, %v, want %d", response, err, test.code)
				}
				if took := time.Since(began); test.tries >= 0 && len(api.bodies) != test.tries || test.tries < 0 && took < 50*time.Second || took > time.Minute {
					t.Errorf("%d tries in %s, want %d", len(api.bodies), took, test.tries)
				}
				for _, body := range api.bodies {
					if body != "patch" {
						t.Errorf("a try sent %q", body)
					}
				}
				if err == nil {
					if body, _ := io.ReadAll(response.Body); len(body) == 0 {
						t.Error("the body of the answer was lost")
					}
				}
				if (said > 0) != (len(api.bodies) > 1) {
					t.Errorf("said %d times", said)
				}
			})
		})
	}
}

// verify sends requests in parallel. The race detector finds a reason that is kept without a lock.
func TestParallelRequestsSayAReasonOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		said := 0
		r := &retrier{next: noServer{}, until: time.Now().Add(time.Second), say: func(string) { said++ }}
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				_, _ = r.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x", nil)) //nolint:bodyclose // there is none
			})
		}
		group.Wait()
		if said != 1 {
			t.Errorf("said %d times, want once", said)
		}
	})
}

type noServer struct{}

func (noServer) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
}

// The commands that run as Jobs wait for an API server that starts; any other use fails at once.
func TestJobsWaitForTheAPIServer(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	for _, command := range [][]string{{"authorize"}, {"uninstall"}, {"verify"}} {
		asked.Store(0)
		var out, errs bytes.Buffer
		code := run(t.Context(), append(command, "--server="+server.URL, "--kubeconfig=/dev/null"), &out, &errs)
		if code != exitFailed || asked.Load() < 3 || !strings.Contains(errs.String(), "Waiting for the API server") {
			t.Errorf("%v: code %d after %d requests: %s", command, code, asked.Load(), &errs)
		}
		errs.Reset()
		asked.Store(0)
		code = run(t.Context(), append(command, "--server="+server.URL, "--kubeconfig=/dev/null", "--timeout=0s"), &out, &errs)
		if code != exitFailed || strings.Contains(errs.String(), "Waiting for the API server") {
			t.Errorf("%v --timeout=0s: code %d: %s", command, code, &errs)
		}
	}
}

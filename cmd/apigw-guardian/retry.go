// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// The pauses between attempts, which double.
const (
	firstAttemptPause = 250 * time.Millisecond
	lastAttemptPause  = 5 * time.Second
)

// retrier repeats requests that fail while an API server starts or restarts: no connection, no DNS, 429 and 5xx. It repeats none
// that the API server refuses (401, 403, 404, invalid), and none whose webhook fails. Every request of the commands may be repeated: they
// read, apply, scale, delete by name, or are dry-runs.
type retrier struct {
	next  http.RoundTripper
	until time.Time
	// say is called for each new reason to wait.
	say func(reason string)

	mu   sync.Mutex // verify sends requests in parallel
	said string
}

// RoundTrip implements [http.RoundTripper].
func (r *retrier) RoundTrip(request *http.Request) (*http.Response, error) {
	for pause := firstAttemptPause; ; pause = min(2*pause, lastAttemptPause) {
		response, err := r.next.RoundTrip(request)
		reason := transient(response, err)
		isRepeatable := request.Body == nil || request.Body == http.NoBody || request.GetBody != nil
		if reason == "" || !isRepeatable || time.Until(r.until) < pause {
			return response, err
		}
		r.tell(reason)
		select {
		case <-request.Context().Done():
			return response, err
		case <-time.After(pause):
		}
		if response != nil {
			_ = response.Body.Close()
		}
		request = request.Clone(request.Context())
		if request.GetBody != nil {
			request.Body, _ = request.GetBody() // it is in memory
		}
	}
}

func (r *retrier) tell(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason != r.said {
		r.said = reason
		r.say(reason)
	}
}

// transient says why a request may succeed later; "" if it may not. It leaves the body of the response to be read.
func transient(response *http.Response, err error) string {
	var dns *net.DNSError
	switch {
	case err == nil:
		return transientStatus(response)
	case utilnet.IsConnectionRefused(err), utilnet.IsConnectionReset(err), utilnet.IsProbableEOF(err), utilnet.IsTimeout(err),
		utilnet.IsHTTP2ConnectionLost(err), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.As(err, &dns):
		return err.Error()
	}
	return ""
}

func transientStatus(response *http.Response) string {
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode < http.StatusInternalServerError {
		return ""
	}
	body, _ := io.ReadAll(response.Body) // without its end, it still says why
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.Contains(body, []byte("failed calling webhook")) { // the caller decides what that means
		return ""
	}
	return "the API server answers " + response.Status
}

// podTimeout is the default of --timeout in a Pod: the chart's Jobs run while an API server may start, and a person waits for a shell.
const podTimeout = time.Minute

// retryFlag adds --timeout to a command that the chart runs as a Job.
func (f *sharedFlags) retryFlag(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0,
		"time to repeat requests that fail because the API server cannot be reached, or answers 429 or 5xx (default 1m in a Pod, else 0s)")
	f.stderr = cmd.ErrOrStderr
	cmd.PreRun = func(cmd *cobra.Command, _ []string) {
		if !cmd.Flags().Changed("timeout") && os.Getenv("KUBERNETES_SERVICE_HOST") != "" { // the kubelet sets it in every Pod
			f.timeout = podTimeout
		}
	}
}

// retrying returns what wraps the transport of a client.
func (f *sharedFlags) retrying() func(http.RoundTripper) http.RoundTripper {
	until := time.Now().Add(f.timeout)
	return func(next http.RoundTripper) http.RoundTripper {
		return &retrier{next: next, until: until, say: func(reason string) {
			say(f.stderr(), fmt.Sprintf("Waiting for the API server, until %s at most: %s", until.Format(time.TimeOnly), reason))
		}}
	}
}

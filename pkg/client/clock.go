// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Clock knows the time of the process, and that of the API server, as its last answer states it. Its zero value is usable.
type Clock struct{ last atomic.Pointer[serverTime] }

type serverTime struct{ server, local time.Time }

// Now returns the later one of both times: an Unlock must not outlive its end because the clock of a node is slow. With a fast clock,
// it ends early.
func (c *Clock) Now() time.Time {
	local := time.Now()
	if server := c.Server(); server.After(local) {
		return server
	}
	return local
}

// Server returns the time of the API server, on which all replicas and administrators agree; that of the process before the first
// answer.
func (c *Clock) Server() time.Time {
	local := time.Now()
	if last := c.last.Load(); last != nil {
		return last.server.Add(local.Sub(last.local))
	}
	return local
}

// Wrap returns a round tripper that reads the time in each answer.
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err != nil {
			return response, err
		}
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			c.last.Store(&serverTime{server: date, local: time.Now()})
		}
		return response, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

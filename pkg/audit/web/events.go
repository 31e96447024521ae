// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	// eventPause is the min time between two events, also during a flood.
	eventPause = 500 * time.Millisecond
	// heartbeat is how often an idle stream sends a comment, so that a tunnel keeps it open.
	heartbeat = 20 * time.Second
	// reconnect is how long the browser waits before it connects again.
	reconnect = time.Second
	// eventTimeout bounds the write of one event.
	eventTimeout = 10 * time.Second
)

// serveEvents streams a signal at first and after each change of the feed, until the browser or the server goes.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	s := stream{w, http.NewResponseController(w)}
	if r.Method == http.MethodHead || !s.write("retry: %d\n\n", reconnect.Milliseconds()) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		now, changed := p.feed.signal()
		data, err := json.Marshal(now)
		if err != nil || !s.write("event: records\ndata: %s\n\n", data) {
			return
		}
		select {
		case <-time.After(eventPause):
		case <-r.Context().Done():
			return
		}
		if !s.await(r, changed, beat.C) {
			return
		}
	}
}

// stream writes events. Each gets its own deadline: the server's is for an answer that ends.
type stream struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

// await returns true when the feed has changed, and false when the browser has gone.
func (s stream) await(r *http.Request, changed <-chan struct{}, beat <-chan time.Time) bool {
	for {
		select {
		case <-changed:
			return true
		case <-beat:
			if !s.write(": still here\n\n") {
				return false
			}
		case <-r.Context().Done():
			return false
		}
	}
}

// write reports whether the event was sent.
func (s stream) write(format string, args ...any) bool {
	if s.controller.SetWriteDeadline(time.Now().Add(eventTimeout)) != nil {
		return false
	}
	_, err := fmt.Fprintf(s.w, format, args...)
	return err == nil && s.controller.Flush() == nil
}

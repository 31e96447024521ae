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
	// eventPause is the least time between two events: a flood of denials is one event each time.
	eventPause = 500 * time.Millisecond
	// heartbeat is how often a stream without news says that it lives; whatever stands between, such as a tunnel, keeps it.
	heartbeat = 20 * time.Second
	// reconnect is how long the browser waits before it asks again.
	reconnect = time.Second
	// eventTimeout is how long one event may take on its way.
	eventTimeout = 10 * time.Second
)

// serveEvents streams a signal at first and whenever the feed has changed, until the browser or the server goes.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	s := stream{w: w, controller: http.NewResponseController(w)}
	if r.Method == http.MethodHead || !s.write(fmt.Sprintf("retry: %d\n\n", reconnect.Milliseconds())) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		now, changed := p.feed.signal()
		if !s.send(now) || !sleep(r, eventPause) || !s.await(r, changed, beat.C) {
			return
		}
	}
}

// sleep reports whether the request is still there afterwards.
func sleep(r *http.Request, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-r.Context().Done():
		return false
	}
}

// stream writes events. The server's time-out is for an answer that ends, so each event gets one of its own.
type stream struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

func (s stream) send(now signal) bool {
	data, err := json.Marshal(now)
	return err == nil && s.write(fmt.Sprintf("event: records\ndata: %s\n\n", data))
}

// await reports whether the browser is still there when the feed has changed.
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

// write reports whether the browser has got it.
func (s stream) write(text string) bool {
	if s.controller.SetWriteDeadline(time.Now().Add(eventTimeout)) != nil {
		return false
	}
	_, err := s.w.Write([]byte(text))
	return err == nil && s.controller.Flush() == nil
}

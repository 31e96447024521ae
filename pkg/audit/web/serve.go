// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// The limits are for one browser on the same machine.
const (
	readTimeout     = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 3 * time.Second
	maxHeaderBytes  = 16 << 10
)

// Serve answers on the listener until ctx ends, and closes it. It returns nil when ctx ends.
func Serve(ctx context.Context, listener net.Listener, page *Page) error {
	server := &http.Server{
		Handler:           page,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		// It would log that a browser has gone.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the page: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ending); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close() // cuts off answers that take longer
}

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

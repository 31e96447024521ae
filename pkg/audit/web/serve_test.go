// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// serve runs a page on loopback, and returns its address and a function that ends it and returns what Serve did.
func serve(t *testing.T, page *Page) (address string, end func() error) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, page) }()
	return "http://" + listener.Addr().String() + page.Path(), func() error {
		cancel()
		return <-served
	}
}

// events is a stream as a browser reads it.
type events struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

func openEvents(t *testing.T, address string) *events {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("got %d %s", response.StatusCode, kind)
	}
	return &events{body: response.Body, lines: bufio.NewScanner(response.Body)}
}

func (e *events) next(t *testing.T) signal {
	t.Helper()
	for e.lines.Scan() {
		if data, found := strings.CutPrefix(e.lines.Text(), "data: "); found {
			var got signal
			if err := json.Unmarshal([]byte(data), &got); err != nil {
				t.Fatal(err)
			}
			return got
		}
	}
	t.Fatalf("the stream has ended: %v", e.lines.Err())
	return signal{}
}

func TestEventsTellOfEachChange(t *testing.T) {
	page := newPage(t)
	address, end := serve(t, page)
	first, second := openEvents(t, address), openEvents(t, address)
	for _, stream := range []*events{first, second} {
		if got := stream.next(t); !reflect.DeepEqual(got, signal{}) {
			t.Errorf("at first: %+v", got)
		}
	}
	page.feed.Source(0).Changed(sample()[0])
	if a, b := first.next(t), second.next(t); a.Revision != 1 || b.Revision != 1 {
		t.Errorf("a record came: %+v, %+v", a, b)
	}
	page.feed.Source(0).Reached(errors.New("connection refused"))
	if got := first.next(t); got.Lost != "connection refused" {
		t.Errorf("the cluster went: %+v", got)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// pipes is a listener inside the program, so that a test can own the time.
type pipes struct {
	connections chan net.Conn
	closed      chan struct{}
	closing     sync.Once
}

func newPipes() *pipes { return &pipes{connections: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case connection := <-p.connections:
		return connection, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8087} }

// stream asks for the events, and returns the rest of the answer.
func (p *pipes) stream(t *testing.T, page *Page) *bufio.Scanner {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	p.connections <- theirs
	if _, err := io.WriteString(ours, "GET "+page.Path()+"api/events HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return bufio.NewScanner(ours)
}

// Changes that come faster than events become few events; a stream without news says that it lives; and the end of the server
// is the end of its streams, at once.
func TestEventsAreFewButNeverNone(t *testing.T) {
	for name, test := range map[string]struct {
		changes       int
		every         time.Duration
		events, beats int
	}{
		"a flood of seven seconds": {changes: 999, every: 7 * time.Millisecond, events: 15},
		"a change now and then":    {changes: 5, every: 5 * time.Second, events: 6, beats: 1},
		"two minutes of nothing":   {changes: 1, every: 130 * time.Second, events: 2, beats: 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				page, listener := newPage(t), newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- Serve(ctx, listener, page) }()
				lines := listener.stream(t, page)
				var events, beats int
				read := make(chan struct{})
				go func() {
					defer close(read)
					for lines.Scan() {
						events += strings.Count(lines.Text(), "data: ")
						beats += strings.Count(lines.Text(), ": still here")
					}
				}()
				synctest.Wait()
				for range test.changes {
					time.Sleep(test.every)
					page.feed.Source(0).Changed(sample()[0])
				}
				time.Sleep(eventPause)
				synctest.Wait()
				end := time.Now()
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
				<-read
				if waited := time.Since(end); waited >= shutdownTimeout {
					t.Errorf("it waited %s for an open stream", waited)
				}
				if events != test.events || beats != test.beats {
					t.Errorf("got %d events and %d heartbeats, want %d and %d", events, beats, test.events, test.beats)
				}
			})
		})
	}
}

func TestServeEndsWithStreamsOpen(t *testing.T) {
	page := newPage(t)
	address, end := serve(t, page)
	stream := openEvents(t, address)
	stream.next(t)
	if err := end(); err != nil {
		t.Errorf("got %v", err)
	}
	for stream.lines.Scan() {
	}
	if _, err := net.Dial("tcp", strings.Split(strings.TrimPrefix(address, "http://"), "/")[0]); err == nil {
		t.Error("it still listens")
	}
}

func TestServeSaysThatItCannot(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if err := Serve(t.Context(), listener, newPage(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

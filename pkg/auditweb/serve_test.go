// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
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
		if got := stream.next(t); got != (signal{}) {
			t.Errorf("at first: %+v", got)
		}
	}
	page.feed.Changed(sample()[0])
	if a, b := first.next(t), second.next(t); a.Revision != 1 || b.Revision != 1 {
		t.Errorf("a record came: %+v, %+v", a, b)
	}
	page.feed.Reached(errors.New("connection refused"))
	if got := first.next(t); got.Lost != "connection refused" {
		t.Errorf("the cluster went: %+v", got)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// Changes that come faster than events become one event, which tells the latest.
func TestEventsOfAFloodAreFew(t *testing.T) {
	page := newPage(t)
	address, end := serve(t, page)
	stream := openEvents(t, address)
	stream.next(t)
	const flood = 10_000
	for range flood {
		page.feed.Changed(sample()[0])
	}
	told := 0
	for stream.next(t).Revision < flood {
		told++
	}
	if told > flood/100 {
		t.Errorf("%d changes were told in %d events", flood, told)
	}
	if err := end(); err != nil {
		t.Error(err)
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// balancer is what a Service does: it passes each connection on to one of the guards, byte by byte, so that TLS is between the
// API server and the guard.
type balancer struct {
	listener net.Listener
	next     atomic.Uint64

	mu      sync.Mutex
	targets []string
	open    map[net.Conn]bool
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: listener, open: map[net.Conn]bool{}}
	t.Cleanup(func() { _ = listener.Close() })
	go b.accept()
	return b
}

func (b *balancer) url() string { return "https://" + b.listener.Addr().String() }

func (b *balancer) add(guard *testbed.Guard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = append(b.targets, strings.TrimPrefix(guard.URL(), "https://"))
}

// replace sends new connections to one guard only.
func (b *balancer) replace(guard *testbed.Guard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = []string{strings.TrimPrefix(guard.URL(), "https://")}
}

func (b *balancer) accept() {
	for {
		connection, err := b.listener.Accept()
		if err != nil {
			return
		}
		go b.splice(connection)
	}
}

func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.targets) == 0 {
		return ""
	}
	return b.targets[int(b.next.Add(1))%len(b.targets)]
}

// cut closes all connections.
func (b *balancer) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for connection := range b.open {
		_ = connection.Close()
	}
	clear(b.open)
}

func (b *balancer) track(connection net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[connection] = true
}

func (b *balancer) splice(client net.Conn) {
	b.track(client)
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", b.pick())
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // one of the two has left
			done <- struct{}{}
		}()
	}
	<-done
}

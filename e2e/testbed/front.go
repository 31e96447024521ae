// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// Front is a TCP proxy for several guards, like a Service. Each connection goes to the next guard that accepts it.
type Front struct {
	listener net.Listener

	mu     sync.Mutex
	guards []*Guard
	next   int
}

// StartFront starts a front without guards on loopback. The caller must call Stop.
func StartFront() (*Front, error) {
	var front *Front
	err := withFreshPorts(1, func(ports []int) error {
		listener, err := net.Listen("tcp", hostPort(ports[0]))
		if err != nil {
			return errors.Join(errPortTaken, err)
		}
		front = &Front{listener: listener}
		go front.serve()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("start the front: %w", err)
	}
	return front, nil
}

// URL returns the URL by which the API server reaches the guards. It is the value of their flag --url.
func (f *Front) URL() string { return "https://" + f.listener.Addr().String() }

// Add makes the front send connections to the guard.
func (f *Front) Add(guard *Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guards = append(f.guards, guard)
}

// Remove makes the front send no more connections to the guard. Open connections remain.
func (f *Front) Remove(guard *Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.guards {
		if other == guard {
			f.guards = append(f.guards[:i:i], f.guards[i+1:]...)
			return
		}
	}
}

// Stop ends the front. Open connections end with their guards.
func (f *Front) Stop() { _ = f.listener.Close() }

func (f *Front) serve() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		go f.splice(client)
	}
}

func (f *Front) splice(client net.Conn) {
	defer func() { _ = client.Close() }()
	guard := f.dial()
	if guard == nil {
		return
	}
	defer func() { _ = guard.Close() }()
	go func() {
		_, _ = io.Copy(guard, client)
		_ = guard.Close()
	}()
	_, _ = io.Copy(client, guard)
}

// dial tries each guard once, in turn. It returns nil if none accepts.
func (f *Front) dial() net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range f.guards {
		guard := f.guards[f.next%len(f.guards)]
		f.next++
		connection, err := net.Dial("tcp", strings.TrimPrefix(guard.URL(), "https://"))
		if err == nil {
			return connection
		}
	}
	return nil
}

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

// Front is a proxy for several guards, as a Service is: each connection goes, byte for byte, to the next guard that
// accepts one.
type Front struct {
	listener net.Listener

	mu     sync.Mutex
	guards []*Guard
	next   int
}

// StartFront listens on loopback. It has no guard yet. The caller calls Stop.
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

// URL is how the API server reaches the guards: give it to each as --url.
func (f *Front) URL() string { return "https://" + f.listener.Addr().String() }

// Add makes the front send connections to a guard. Remove ends that, and leaves the guard's connections open.
func (f *Front) Add(guard *Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guards = append(f.guards, guard)
}

// Remove is the opposite of Add.
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

// Stop ends the front; connections end with their guards.
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

// dial tries each guard once, from the next on; nil where none accepts.
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

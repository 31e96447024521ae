// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Link is a TCP proxy to an API server: the network between it and one client, which a test can make worse.
type Link struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	cut   bool
	delay time.Duration
	open  map[net.Conn]bool
}

// StartLink starts a link to the API server of config on loopback, and returns the configuration that uses it. The caller must call Stop.
func StartLink(config *rest.Config) (*Link, *rest.Config, error) {
	link := &Link{target: strings.TrimPrefix(config.Host, "https://"), open: map[net.Conn]bool{}}
	err := withFreshPorts(1, func(ports []int) error {
		listener, err := net.Listen("tcp", hostPort(ports[0]))
		if err != nil {
			return errors.Join(errPortTaken, err)
		}
		link.listener = listener
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("start a link: %w", err)
	}
	go link.serve()
	through := rest.CopyConfig(config)
	through.Host = "https://" + link.listener.Addr().String()
	return link, through, nil
}

// Delay delays what is sent from now on, in each direction.
func (l *Link) Delay(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = by
}

// Cut ends all connections, and accepts no new one until Mend.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	l.drop()
}

// Mend undoes Cut.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// Drop ends all connections.
func (l *Link) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

func (l *Link) drop() {
	for connection := range l.open {
		_ = connection.Close()
	}
	clear(l.open)
}

// Stop ends the link and its connections.
func (l *Link) Stop() {
	_ = l.listener.Close()
	l.Cut()
}

func (l *Link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.target)
		if err != nil || !l.add(client, server) {
			_ = client.Close()
			continue
		}
		go l.copy(client, server)
		go l.copy(server, client)
	}
}

// add reports whether the link takes a connection. If it does not, it closes both.
func (l *Link) add(client, server net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = client.Close()
		_ = server.Close()
		return false
	}
	l.open[client], l.open[server] = true, true
	return true
}

func (l *Link) copy(to, from net.Conn) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		delay := l.delay
		l.mu.Unlock()
		time.Sleep(delay)
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

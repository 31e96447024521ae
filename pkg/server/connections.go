// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// connections holds the open connections in the order in which they are closed to make room for a new one:
//
//  1. If half of them owe the server something (a handshake, the head or the body of a request): the one that has owed it longest,
//     among those that have sent nothing or among the others, whichever are more. So a flood of slow clients costs no used connection.
//  2. If there are max connections: the idle one that was used longest ago. API servers use theirs, so that these go last.
//
// Of these, it is one of the source address that has most of them. So a flood from one address costs no other address a connection, and
// an API server may open as many as it needs while there is room.
//
// A connection whose request is being answered is never closed. Safe for concurrent use.
type connections struct {
	max int

	mu                  sync.Mutex
	open                int
	silent, owing, idle *queue
	closed              int // to make room, so far
}

// queue holds connections by their source address. The front of each list has waited longest. The zero queue is empty.
type queue struct {
	length int
	turns  uint64
	lists  map[netip.Prefix]*list.List // of *conn; none is empty
}

func (q *queue) push(c *conn) {
	if q.lists == nil {
		q.lists = map[netip.Prefix]*list.List{}
	}
	if q.lists[c.source] == nil {
		q.lists[c.source] = list.New()
	}
	q.length++
	q.turns++
	c.turn = q.turns
	c.place = q.lists[c.source].PushBack(c)
}

func (q *queue) remove(c *conn) {
	q.length--
	from := q.lists[c.source]
	if from.Remove(c.place); from.Len() == 0 {
		delete(q.lists, c.source)
	}
}

// first returns the connection that has waited longest of the source that has most, or of all such sources; nil if there is none.
func (q *queue) first() *conn {
	var first *conn
	most := 0
	for _, from := range q.lists {
		c := from.Front().Value.(*conn) //nolint:errcheck,forcetypeassert // the lists hold nothing else
		if from.Len() > most || from.Len() == most && c.turn < first.turn {
			first, most = c, from.Len()
		}
	}
	return first
}

// sourceOf returns an IPv4 address, or the /64 of an IPv6 address, as one client has all of those; zero for another address.
func sourceOf(address net.Addr) netip.Prefix {
	tcp, isTCP := address.(*net.TCPAddr)
	if !isTCP {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	prefix, _ := ip.Prefix(min(ip.BitLen(), 64)) // impossible: the length fits
	return prefix
}

func newConnections(limit int) *connections {
	return &connections{max: limit, silent: &queue{}, owing: &queue{}, idle: &queue{}}
}

// add adds a new connection, which owes a handshake, and may close another one. It returns false if every connection is in use.
func (t *connections) add(c *conn) bool {
	t.mu.Lock()
	var victim *conn
	switch {
	case t.silent.length+t.owing.length >= t.maxOwing():
		victim = t.takeDebtor()
	case t.open >= t.max:
		victim = t.takeFirst(t.idle)
	}
	ok := t.open < t.max
	if ok {
		t.open++
		c.isOpen = true
		t.put(c, t.silent)
	}
	t.mu.Unlock()
	victim.cut()
	return ok
}

func (t *connections) maxOwing() int { return max(1, t.max/2) }

// makeRoom closes the connection that has owed longest. It is called when no file descriptor is free.
func (t *connections) makeRoom() {
	t.mu.Lock()
	victim := t.takeDebtor()
	t.mu.Unlock()
	victim.cut()
}

// owes notes that the client has begun a request, or must read its last answer.
func (t *connections) owes(c *conn) {
	t.mu.Lock()
	var victim *conn
	if c.isOpen && c.queue != t.owing {
		t.put(c, t.owing)
		if t.silent.length+t.owing.length > t.maxOwing() {
			victim = t.takeDebtor()
		}
	}
	t.mu.Unlock()
	victim.cut()
}

// heard notes that the client sent bytes: its first ones, or those that begin the next request.
func (t *connections) heard(c *conn) {
	t.mu.Lock()
	begins := c.queue != nil && c.queue != t.owing
	t.mu.Unlock()
	if begins {
		t.owes(c)
	}
}

// answering notes that no more of the request will be read.
func (t *connections) answering(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(c, nil)
}

// answered notes that c waits for its next request.
func (t *connections) answered(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.isOpen {
		t.put(c, t.idle)
	}
}

// remove removes a closed connection. It may be called twice.
func (t *connections) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.take(c)
}

// put moves c to the end of a queue; nil for no queue. The caller holds mu.
func (t *connections) put(c *conn, to *queue) {
	if c.queue != nil {
		c.queue.remove(c)
	}
	if c.queue = to; to != nil {
		to.push(c)
	}
}

// takeDebtor removes the connection to close of those that owe something. The caller holds mu.
func (t *connections) takeDebtor() *conn {
	if t.silent.length >= t.owing.length {
		return t.takeFirst(t.silent)
	}
	return t.takeFirst(t.owing)
}

// takeFirst removes the first of a queue and returns it, or nil. The caller holds mu.
func (t *connections) takeFirst(from *queue) *conn {
	c := from.first()
	if c != nil {
		t.take(c)
		t.closed++
	}
	return c
}

// take removes c. The caller holds mu.
func (t *connections) take(c *conn) {
	t.put(c, nil)
	if c.isOpen {
		c.isOpen = false
		t.open--
	}
}

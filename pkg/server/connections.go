// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"container/list"
	"sync"
)

// connections holds the open connections in the order in which they are closed to make room for a new one:
//
//  1. Where half of them owe the server something (a handshake, the head or the body of a request): the one that has owed it
//     longest, of those that have sent nothing at all or of the others, whichever are more. So a flood of clients that send
//     nothing, or send slowly, costs no used connection.
//  2. Where there are max connections: the idle one that was used longest ago. An API server's own are the last to go, as they
//     are used.
//
// A connection whose request is being answered is never closed. Safe for concurrent use.
type connections struct {
	max int

	mu                  sync.Mutex
	open                int
	silent, owing, idle *list.List // of *conn; the front has waited longest
	closed              int        // to make room, so far
}

func newConnections(limit int) *connections {
	return &connections{max: limit, silent: list.New(), owing: list.New(), idle: list.New()}
}

// add takes in a new connection, which owes a handshake, and closes another one where that is needed. It returns false, and
// does not take c in, if every connection is in use.
func (t *connections) add(c *conn) bool {
	t.mu.Lock()
	var victim *conn
	switch {
	case t.silent.Len()+t.owing.Len() >= t.maxOwing():
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

// makeRoom closes the connection that has owed longest, for want of file descriptors.
func (t *connections) makeRoom() {
	t.mu.Lock()
	victim := t.takeDebtor()
	t.mu.Unlock()
	victim.cut()
}

// owes says that the client has begun a request, or is to take an answer that is the last one.
func (t *connections) owes(c *conn) {
	t.mu.Lock()
	var victim *conn
	if c.isOpen && c.queue != t.owing {
		t.put(c, t.owing)
		if t.silent.Len()+t.owing.Len() > t.maxOwing() {
			victim = t.takeDebtor()
		}
	}
	t.mu.Unlock()
	victim.cut()
}

// heard says that bytes came from the client: the first ones, or, between two requests, those that begin the next one.
func (t *connections) heard(c *conn) {
	t.mu.Lock()
	begins := c.queue != nil && c.queue != t.owing
	t.mu.Unlock()
	if begins {
		t.owes(c)
	}
}

// answering says that the request of c has come whole, or as far as it will.
func (t *connections) answering(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(c, nil)
}

// answered says that c waits for its next request.
func (t *connections) answered(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.isOpen {
		t.put(c, t.idle)
	}
}

// remove forgets a connection that is closed. It may be called twice.
func (t *connections) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.take(c)
}

// put moves c to the end of queue, or to none where queue is nil. The caller holds mu.
func (t *connections) put(c *conn, queue *list.List) {
	if c.queue != nil {
		c.queue.Remove(c.place)
	}
	if c.queue = queue; queue != nil {
		c.place = queue.PushBack(c)
	}
}

// takeDebtor removes the connection that owes something and is the first to go. The caller holds mu.
func (t *connections) takeDebtor() *conn {
	if t.silent.Len() >= t.owing.Len() {
		return t.takeFirst(t.silent)
	}
	return t.takeFirst(t.owing)
}

// takeFirst removes the first of queue and returns it; nil where there is none. The caller holds mu.
func (t *connections) takeFirst(queue *list.List) *conn {
	front := queue.Front()
	if front == nil {
		return nil
	}
	c := front.Value.(*conn) //nolint:errcheck,forcetypeassert // the queues hold nothing else
	t.take(c)
	t.closed++
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

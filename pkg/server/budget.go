// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// budget bounds the bytes that bodies take in memory together. A body without room waits in a queue. Meanwhile, bodies that have
// been arriving for longer than grace are cut, the oldest first. Safe for concurrent use.
type budget struct {
	grace    time.Duration // how long a body may arrive while others wait
	patience time.Duration // how long a body waits for room
	maxQueue int

	mu       sync.Mutex
	free     int64
	cut      int64     // bytes of bodies that were cut, and will be free in a moment
	queue    list.List // of *hold, without room
	arriving list.List // of *hold, with room, not yet complete; the oldest first
}

// hold is the room of one body. All fields are guarded by the budget's mu.
type hold struct {
	bytes   int64
	since   time.Time
	cut     func()
	isCut   bool
	granted chan struct{} // closed with the room
	place   *list.Element // in arriving; nil once the body is complete or cut
	timer   *time.Timer
}

// reserve takes n bytes for an arriving body. The error is webhook.ErrOverloaded. If others need the room, cut is called, at most
// once, and not after arrived. It must not block.
func (b *budget) reserve(ctx context.Context, n int64, cut func()) (*hold, error) {
	h := &hold{bytes: n, cut: cut, granted: make(chan struct{})}
	b.mu.Lock()
	if b.queue.Len() >= b.maxQueue {
		b.mu.Unlock()
		return nil, webhook.ErrOverloaded
	}
	place := b.queue.PushBack(h)
	b.settle()
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	select {
	case <-h.granted:
		return h, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.place != nil || h.isCut { // it got room just now
		return h, nil
	}
	b.queue.Remove(place)
	b.settle()
	return nil, webhook.ErrOverloaded
}

// unlessCut calls f, which must not block, unless the body was cut. A later cut overrides what f does.
func (b *budget) unlessCut(h *hold, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !h.isCut {
		f()
	}
}

// arrived ends the arrival of a body. It reports whether the body was cut.
func (b *budget) arrived(h *hold) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(h)
	return h.isCut
}

// release is called once for each hold.
func (b *budget) release(h *hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(h)
	b.free += h.bytes
	if h.isCut {
		b.cut -= h.bytes
	}
	b.settle()
}

// settle gives room to waiting bodies, in turn, and cuts others for the first one without room. The caller holds mu.
func (b *budget) settle() {
	for front := b.queue.Front(); front != nil; front = b.queue.Front() {
		h := front.Value.(*hold) //nolint:errcheck,forcetypeassert // the lists hold nothing else
		if h.bytes > b.free {
			b.makeRoom(h.bytes)
			return
		}
		b.queue.Remove(front)
		b.free -= h.bytes
		h.since, h.place = time.Now(), b.arriving.PushBack(h)
		h.timer = time.AfterFunc(b.grace, b.expire)
		close(h.granted)
	}
}

// expire runs when the grace of a body is over.
func (b *budget) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
}

// makeRoom cuts bodies until n bytes are free, or will be. The caller holds mu.
func (b *budget) makeRoom(n int64) {
	for front := b.arriving.Front(); front != nil && b.free+b.cut < n; front = b.arriving.Front() {
		h := front.Value.(*hold) //nolint:errcheck,forcetypeassert // the lists hold nothing else
		if time.Since(h.since) < b.grace {
			return
		}
		b.leave(h)
		h.isCut = true
		b.cut += h.bytes
		h.cut()
	}
}

// leave removes h from arriving. The caller holds mu.
func (b *budget) leave(h *hold) {
	if h.place != nil {
		b.arriving.Remove(h.place)
		h.place = nil
		h.timer.Stop()
	}
}

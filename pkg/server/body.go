// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

const (
	// smallBody is the largest body that never waits for a larger one: a review of a reserved resource has some 10 KiB.
	smallBody = 128 << 10

	// smallBudget is the memory of all small bodies, and of the heads of refused ones.
	smallBudget = 8 << 20

	// leastCharge is what a body costs at least: its request, its goroutine and its answer take memory too. It lets 512 small
	// bodies be on their way at a time.
	leastCharge = 16 << 10

	// copies is how often a large body is counted: a decision may copy each of its bytes once more.
	copies = 2

	// headBytes is what is read of a body that is refused: who asks for what stands ahead of the objects.
	headBytes = 16 << 10

	// patience is how long a body waits for room. It leaves the API server, whose timeout is 5 s, time for the answer.
	patience = time.Second

	// largeGrace is how long a large body may be on its way while another one waits. An API server sends 10 MiB in some 20 ms.
	largeGrace = 250 * time.Millisecond

	// maxLargeQueue bounds the large bodies that wait for room: the kernel keeps the beginning of each meanwhile.
	maxLargeQueue = 16

	// minBytesPerSecond is the least speed of a body, after its first second.
	minBytesPerSecond = 4 << 20

	// maxDrainedBytes is read and thrown away of a body that is refused, so that the API server has sent its request to the
	// end and reads the answer. The API server takes requests of up to 3 MiB; two such objects, six bytes for one: 36 MiB.
	maxDrainedBytes = 36 << 20

	// drainedPerSecond is the speed of all that is thrown away together: decrypting it takes a CPU's time.
	drainedPerSecond = 64 << 20
)

// rooms are the two budgets. Small bodies have one of their own, so that no number of large ones makes them wait.
type rooms struct {
	small, large *budget
	drains       *pace
	maxBody      int64
}

func newRooms(limits limits) *rooms {
	return &rooms{
		small:   &budget{free: smallBudget, patience: patience, maxQueue: limits.connections},
		large:   &budget{free: copies * limits.bodyBytes, grace: largeGrace, patience: patience, maxQueue: maxLargeQueue},
		drains:  &pace{},
		maxBody: limits.bodyBytes,
	}
}

// received is a body in memory, as far as it came: its Read ends with err where it did not come whole.
type received struct {
	bytes.Reader
	data []byte
	err  error
}

func newReceived(data []byte, err error) *received {
	b := &received{data: data, err: err}
	b.Reset(data)
	return b
}

// Received returns the body without a copy, and why it is not whole. The error is webhook.ErrTooLarge, webhook.ErrOverloaded or
// of the connection.
func (b *received) Received() ([]byte, error) { return b.data, b.err }

// Read reads from memory.
func (b *received) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) && b.err != nil {
		err = b.err
	}
	return n, err
}

// Close does nothing.
func (b *received) Close() error { return nil }

// receiving reads each body into memory before the request takes a slot, within the budgets: a handler never waits for a
// client. It is outermost, as it needs net/http's own ResponseWriter.
func (s *Server) receiving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Trailer) > 0 { // a list of any length, which an API server never sends
			w.Header().Set("Connection", "close")
			http.Error(w, "trailers are not taken", http.StatusBadRequest)
			return
		}
		c := connOf(r)
		if c != nil {
			state := c.secure.ConnectionState()
			r.TLS = &state
			s.connections.owes(c)
		}
		a := &arrival{rooms: s.rooms, source: r.Body, setDeadline: http.NewResponseController(w).SetReadDeadline}
		defer a.release()
		data, err := a.receive(r.Context(), r.ContentLength)
		r.Body, r.Trailer = newReceived(data, err), nil
		if c != nil {
			s.connections.answering(c)
		}
		if err != nil || c != nil && c.isPipelined(r.ContentLength) {
			w.Header().Set("Connection", "close") // what follows on the connection is not read
		}
		next.ServeHTTP(w, r)
		if c != nil && w.Header().Get("Connection") != "" {
			s.connections.owes(c) // net/http keeps it for half a second more, for the client to take the answer
		}
	})
}

// arrival is a body on its way into memory.
type arrival struct {
	rooms       *rooms
	source      io.Reader
	setDeadline func(time.Time) error

	budget *budget
	hold   *hold // nil while it has no room
}

// receive returns the body, or the head of it and an error. The bytes may be used until release.
func (a *arrival) receive(ctx context.Context, length int64) ([]byte, error) {
	switch {
	case length == 0:
		return nil, nil
	case length < 0:
		return a.unknown(ctx)
	case length <= smallBody && length <= a.rooms.maxBody:
		if err := a.reserve(ctx, a.rooms.small, max(length, leastCharge)); err != nil {
			return nil, err
		}
		return a.whole(make([]byte, length), 0)
	case length <= a.rooms.maxBody:
		if err := a.reserve(ctx, a.rooms.large, copies*length); err != nil {
			return a.refused(ctx, err)
		}
		data, err := a.whole(make([]byte, length), 0)
		if err != nil {
			data = a.shrink(ctx, data)
		}
		return data, err
	default:
		return a.refused(ctx, a.tooLarge())
	}
}

// whole fills data from what stands at start on. A body that is cut off, or slower than minBytesPerSecond, is an error.
func (a *arrival) whole(data []byte, start int) ([]byte, error) {
	a.expect(int64(len(data)))
	n, err := fill(a.source, data[start:])
	if n += start; n == len(data) || errors.Is(err, io.EOF) {
		err = nil
	}
	if a.budget.arrived(a.hold) {
		return data[:n], webhook.ErrOverloaded
	}
	if err != nil {
		return data[:n], fmt.Errorf("receive the body: %w", err)
	}
	_ = a.setDeadline(time.Time{}) // the handler's time is not the client's
	return data[:n], nil
}

// unknown receives a body of unknown length: a small one, or else one of the largest size.
func (a *arrival) unknown(ctx context.Context) ([]byte, error) {
	if err := a.reserve(ctx, a.rooms.small, smallBody); err != nil {
		return nil, err
	}
	size := min(smallBody, a.rooms.maxBody)
	data, err := a.whole(make([]byte, size), 0)
	if err != nil || int64(len(data)) < size {
		return data, err
	}
	if err := a.reserve(ctx, a.rooms.large, copies*a.rooms.maxBody); err != nil {
		return a.drain(a.shrink(ctx, data), err)
	}
	start := len(data)
	data, err = a.whole(append(make([]byte, 0, a.rooms.maxBody+1), data...)[:a.rooms.maxBody+1], start)
	switch {
	case err != nil:
		return a.shrink(ctx, data), err
	case int64(len(data)) > a.rooms.maxBody:
		return a.drain(a.shrink(ctx, data), a.tooLarge())
	}
	return data, nil
}

// refused reads the head of a body that is not taken, and throws the rest away.
func (a *arrival) refused(ctx context.Context, cause error) ([]byte, error) {
	if err := a.reserve(ctx, a.rooms.small, headBytes); err != nil {
		return nil, err
	}
	data := make([]byte, headBytes)
	a.expect(headBytes)
	n, err := fill(a.source, data)
	if err != nil {
		return data[:n], cause
	}
	return a.drain(data, cause)
}

// drain throws the rest of the body away, unless there is no room even for its head. The answer is the same, however that ends.
func (a *arrival) drain(head []byte, cause error) ([]byte, error) {
	if a.hold == nil {
		return nil, cause
	}
	a.expect(maxDrainedBytes)
	_, _ = io.CopyN(a.rooms.drains, a.source, maxDrainedBytes)
	return head, cause
}

// shrink keeps the head of a body that is refused, and gives the room of the rest back at once.
func (a *arrival) shrink(ctx context.Context, data []byte) []byte {
	head := bytes.Clone(data[:min(len(data), headBytes)])
	a.release()
	if a.reserve(ctx, a.rooms.small, headBytes) != nil {
		return nil
	}
	return head
}

// reserve takes room for n bytes, in exchange for the room that the body has. With an error, it keeps that.
func (a *arrival) reserve(ctx context.Context, from *budget, n int64) error {
	h, err := from.reserve(ctx, n, func() { _ = a.setDeadline(time.Unix(1, 0)) })
	if err != nil {
		return err
	}
	a.release()
	a.budget, a.hold = from, h
	return nil
}

// release gives the room back. It may be called twice.
func (a *arrival) release() {
	if a.hold != nil {
		a.budget.release(a.hold)
		a.hold = nil
	}
}

// expect gives the client time for n more bytes.
func (a *arrival) expect(n int64) {
	a.budget.unlessCut(a.hold, func() {
		_ = a.setDeadline(time.Now().Add(time.Second + time.Duration(n)*time.Second/minBytesPerSecond))
	})
}

func (a *arrival) tooLarge() error {
	return fmt.Errorf("more than %d bytes: %w", a.rooms.maxBody, webhook.ErrTooLarge)
}

// pace is a writer that forgets what it is given, and takes drainedPerSecond bytes a second from all that write to it.
type pace struct {
	mu   sync.Mutex
	next time.Time
}

// Write returns when its turn has come.
func (p *pace) Write(data []byte) (int, error) {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	turn := p.next
	p.next = turn.Add(time.Duration(len(data)) * time.Second / drainedPerSecond)
	p.mu.Unlock()
	time.Sleep(turn.Sub(now))
	return len(data), nil
}

// fill reads until data is full, and returns the error of the reader if that comes first.
func fill(source io.Reader, data []byte) (int, error) {
	n := 0
	for n < len(data) {
		read, err := source.Read(data[n:])
		if n += read; err != nil {
			return n, err
		}
	}
	return n, nil
}

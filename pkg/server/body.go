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
	"time"

	"golang.org/x/time/rate"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

const (
	// smallBody is the largest body that never waits for a larger one: a review of a reserved resource has some 10 KiB.
	smallBody = 128 << 10
	// smallBudget is the memory of all small bodies, and of the heads of refused ones.
	smallBudget = 8 << 20
	// minCharge is what a body costs at least, with its request, goroutine and answer: 512 small bodies may arrive at a time.
	minCharge = 16 << 10
	// copies is how often a large body is counted: a decision may copy each of its bytes once more.
	copies = 2
	// headBytes is what is read of a refused body: the user and the operation are ahead of the objects.
	headBytes = 16 << 10
	// patience is how long a body waits for room. The API server's timeout is 5 s, which leaves time for the answer.
	patience = time.Second
	// largeGrace is how long a large body may take to arrive while another one waits. An API server sends 10 MiB in some 20 ms.
	largeGrace = 250 * time.Millisecond
	// maxLargeQueue bounds the large bodies that wait for room: the kernel keeps the beginning of each meanwhile.
	maxLargeQueue = 16
	// minBytesPerSecond is the lowest speed of a body after its first second.
	minBytesPerSecond = 4 << 20
	// maxDrainedBytes of a refused body are read and dropped, so that the API server has sent its request to the end and reads the
	// answer. It takes requests of up to 3 MiB; two such objects, six bytes for one: 36 MiB.
	maxDrainedBytes = 36 << 20
	// drainedPerSecond bounds all dropped bytes together: decrypting them takes a CPU's time. drainBurst is io.Copy's buffer.
	drainedPerSecond = 64 << 20
	drainBurst       = 32 << 10
)

// rooms are the two budgets. Small bodies have a separate one, so that no number of large ones makes them wait.
type rooms struct {
	small, large *budget
	drains       drain
	maxBody      int64
}

func newRooms(limits limits) *rooms {
	return &rooms{
		small:   &budget{free: smallBudget, patience: patience, maxQueue: limits.connections},
		large:   &budget{free: copies * limits.bodyBytes, grace: largeGrace, patience: patience, maxQueue: maxLargeQueue},
		drains:  drain{rate.NewLimiter(drainedPerSecond, drainBurst)},
		maxBody: limits.bodyBytes,
	}
}

// drain is a writer that drops its input within a rate that all writers share.
type drain struct{ *rate.Limiter }

func (d drain) Write(data []byte) (int, error) {
	return len(data), d.WaitN(context.Background(), len(data))
}

// received is a body in memory. If the body is not complete, Read ends with err.
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

// Received returns the body without a copy. The error is webhook.ErrTooLarge, webhook.ErrOverloaded or one of the connection.
func (b *received) Received() ([]byte, error) { return b.data, b.err }

func (b *received) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) && b.err != nil {
		err = b.err
	}
	return n, err
}

// Close does nothing.
func (b *received) Close() error { return nil }

// receiving reads each body into memory, within the budgets, before the request takes a slot: a handler never waits for a client.
// It is the outermost handler, as it needs net/http's own ResponseWriter.
func (s *Server) receiving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Trailer) > 0 { // a list without a bound, which an API server never sends
			w.Header().Set("Connection", "close")
			http.Error(w, "trailers are not allowed", http.StatusBadRequest)
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
			s.connections.owes(c) // net/http keeps it for half a second more, for the client to read the answer
		}
	})
}

// arrival is a body that is being received.
type arrival struct {
	rooms       *rooms
	source      io.Reader
	setDeadline func(time.Time) error

	budget *budget
	hold   *hold // nil without room
}

// receive returns the body, or its head and an error. The bytes may be used until release.
func (a *arrival) receive(ctx context.Context, length int64) ([]byte, error) {
	switch {
	case length == 0:
		return nil, nil
	case length < 0:
		return a.unknown(ctx)
	case length <= smallBody && length <= a.rooms.maxBody:
		if err := a.reserve(ctx, a.rooms.small, max(length, minCharge)); err != nil {
			return nil, err
		}
		return a.fill(make([]byte, length), 0)
	case length <= a.rooms.maxBody:
		if err := a.reserve(ctx, a.rooms.large, copies*length); err != nil {
			return a.refused(ctx, err)
		}
		data, err := a.fill(make([]byte, length), 0)
		if err != nil {
			data = a.shrink(ctx, data)
		}
		return data, err
	default:
		return a.refused(ctx, a.tooLarge())
	}
}

// fill receives data[start:], or less if the body ends. It returns an error if the body was cut or slower than minBytesPerSecond.
func (a *arrival) fill(data []byte, start int) ([]byte, error) {
	a.expect(int64(len(data)))
	n, err := readFull(a.source, data[start:])
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

// unknown receives a body of unknown length: first as a small one, then as one of the largest size.
func (a *arrival) unknown(ctx context.Context) ([]byte, error) {
	if err := a.reserve(ctx, a.rooms.small, smallBody); err != nil {
		return nil, err
	}
	size := min(smallBody, a.rooms.maxBody)
	data, err := a.fill(make([]byte, size), 0)
	if err != nil || int64(len(data)) < size {
		return data, err
	}
	if err := a.reserve(ctx, a.rooms.large, copies*a.rooms.maxBody); err != nil {
		return a.drain(a.shrink(ctx, data), err)
	}
	start := len(data)
	data, err = a.fill(append(make([]byte, 0, a.rooms.maxBody+1), data...)[:a.rooms.maxBody+1], start)
	switch {
	case err != nil:
		return a.shrink(ctx, data), err
	case int64(len(data)) > a.rooms.maxBody:
		return a.drain(a.shrink(ctx, data), a.tooLarge())
	}
	return data, nil
}

// refused reads the head of a refused body, and drops the rest.
func (a *arrival) refused(ctx context.Context, cause error) ([]byte, error) {
	if err := a.reserve(ctx, a.rooms.small, headBytes); err != nil {
		return nil, err
	}
	data := make([]byte, headBytes)
	a.expect(headBytes)
	n, err := readFull(a.source, data)
	if err != nil {
		return data[:n], cause
	}
	return a.drain(data, cause)
}

// drain drops the rest of the body if there is room for its head. The answer does not depend on how that ends.
func (a *arrival) drain(head []byte, cause error) ([]byte, error) {
	if a.hold == nil {
		return nil, cause
	}
	a.expect(maxDrainedBytes)
	_, _ = io.CopyN(a.rooms.drains, a.source, maxDrainedBytes)
	return head, cause
}

// shrink keeps the head of a refused body, and releases the room of the rest.
func (a *arrival) shrink(ctx context.Context, data []byte) []byte {
	head := bytes.Clone(data[:min(len(data), headBytes)])
	a.release()
	if a.reserve(ctx, a.rooms.small, headBytes) != nil {
		return nil
	}
	return head
}

// reserve exchanges the room of the body for n bytes. After an error, the body keeps its room.
func (a *arrival) reserve(ctx context.Context, from *budget, n int64) error {
	h, err := from.reserve(ctx, n, func() { _ = a.setDeadline(time.Unix(1, 0)) })
	if err != nil {
		return err
	}
	a.release()
	a.budget, a.hold = from, h
	return nil
}

// release may be called twice.
func (a *arrival) release() {
	if a.hold != nil {
		a.budget.release(a.hold)
		a.hold = nil
	}
}

// expect sets the deadline for n more bytes.
func (a *arrival) expect(n int64) {
	a.budget.unlessCut(a.hold, func() {
		_ = a.setDeadline(time.Now().Add(time.Second + time.Duration(n)*time.Second/minBytesPerSecond))
	})
}

func (a *arrival) tooLarge() error {
	return fmt.Errorf("more than %d bytes: %w", a.rooms.maxBody, webhook.ErrTooLarge)
}

// readFull reads until data is full, and returns the reader's error if that comes first.
func readFull(source io.Reader, data []byte) (int, error) {
	n := 0
	for n < len(data) {
		read, err := source.Read(data[n:])
		if n += read; err != nil {
			return n, err
		}
	}
	return n, nil
}

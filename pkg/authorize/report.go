// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import "sync"

// ordered passes the lines of reservations that are applied at the same time on in the order of the reservations: those of the first
// that is not done at once, and those of a later one when all before it are done. It is safe for concurrent use.
type ordered struct {
	report func(Line)

	mu      sync.Mutex
	next    int
	waiting [][]Line
	done    []bool
}

func newOrdered(reservations int, report func(Line)) *ordered {
	return &ordered{report: report, waiting: make([][]Line, reservations), done: make([]bool, reservations)}
}

func (o *ordered) add(reservation int, line Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[reservation] = append(o.waiting[reservation], line)
	o.flush()
}

// finish says that the reservation has no further lines.
func (o *ordered) finish(reservation int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[reservation] = true
	o.flush()
}

func (o *ordered) flush() {
	for o.next < len(o.done) {
		for _, line := range o.waiting[o.next] {
			o.report(line)
		}
		o.waiting[o.next] = nil
		if !o.done[o.next] {
			return
		}
		o.next++
	}
}

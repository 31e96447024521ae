// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Flood sends forbidden writes by many users as fast as possible.
type Flood struct {
	Clients, Users int
	// Max is the number of writes after which the flood ends; 0 means that it ends with the context.
	Max int64
	// Denials counts the denials during the flood; nil counts none.
	Denials *atomic.Int64
}

// Tally counts the writes of a flood by result, as its clients saw it.
type Tally struct {
	// Denied writes got 403. Allowed writes succeeded, which is an error of the guard.
	Denied, Allowed int64
	// Failed writes got another answer, or none.
	Failed int64
	// Failure is what one of the failed writes got. It is empty if none failed.
	Failure string
}

// Run sends the flood and returns after the answer to the last write.
func (f Flood) Run(ctx context.Context, world *World) Tally {
	var sent, allowed, failed atomic.Int64
	var failure atomic.Value
	denied := f.Denials
	if denied == nil {
		denied = new(atomic.Int64)
	}
	var group sync.WaitGroup
	for range f.Clients {
		group.Go(func() {
			for ctx.Err() == nil {
				n := sent.Add(1)
				if f.Max > 0 && n > f.Max {
					return
				}
				// Cancelling a call could leave a denial that is counted but not in the audit log.
				answer, err := world.Guarded.Do(context.WithoutCancel(ctx), f.write(world, n))
				switch {
				case err == nil && answer.Code == http.StatusForbidden:
					denied.Add(1)
				case err == nil && answer.Code < http.StatusBadRequest:
					allowed.Add(1)
				default:
					failed.Add(1)
					failure.Store(fmt.Sprintf("at %s: %d %s (%v)", time.Now().Format(time.StampMilli), answer.Code, answer.Body, err))
				}
			}
		})
	}
	group.Wait()
	text, _ := failure.Load().(string)
	return Tally{Denied: denied.Load(), Allowed: allowed.Load(), Failed: failed.Load(), Failure: text}
}

func (f Flood) write(world *World, n int64) Write {
	write := Merge(world.Role, `{"metadata":{"labels":{"flood":"yes"}}}`)
	write.As = Identity{User: fmt.Sprintf("user-%d", n%int64(f.Users)), Groups: []string{"system:masters"}}
	return write
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

// Flood is forbidden writes by many users, as fast as its clients can send them.
type Flood struct {
	Clients, Users int
	// Most ends the flood after so many writes; zero for not before the context ends.
	Most int64
	// Denials counts the denials while the flood goes on, unless it is nil.
	Denials *atomic.Int64
}

// Tally is what became of a flood's writes, as its clients saw it.
type Tally struct {
	// Denied were answered by 403; Allowed by success, which must not be.
	Denied, Allowed int64
	// Failed got another answer, or none.
	Failed int64
}

// Run returns when the flood is over and every write is answered.
func (f Flood) Run(ctx context.Context, world *World) Tally {
	var sent, allowed, failed atomic.Int64
	denied := f.Denials
	if denied == nil {
		denied = new(atomic.Int64)
	}
	var group sync.WaitGroup
	for range f.Clients {
		group.Go(func() {
			for ctx.Err() == nil {
				n := sent.Add(1)
				if f.Most > 0 && n > f.Most {
					return
				}
				// A call that is cut off at the end could be counted, and be in no audit log.
				answer, err := world.Guarded.Do(context.WithoutCancel(ctx), f.write(world, n))
				switch {
				case err == nil && answer.Code == http.StatusForbidden:
					denied.Add(1)
				case err == nil && answer.Code < http.StatusBadRequest:
					allowed.Add(1)
				default:
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	return Tally{Denied: denied.Load(), Allowed: allowed.Load(), Failed: failed.Load()}
}

func (f Flood) write(world *World, n int64) Write {
	write := Merge(world.Role, `{"metadata":{"labels":{"flood":"yes"}}}`)
	write.As = Identity{User: fmt.Sprintf("user-%d", n%int64(f.Users)), Groups: []string{"system:masters"}}
	return write
}

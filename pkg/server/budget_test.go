// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

func newBudget() *budget {
	return &budget{free: 10, grace: time.Second, patience: 4 * time.Second, maxQueue: 2}
}

func (b *budget) mustReserve(t *testing.T, n int64) (h *hold, cut *atomic.Bool) {
	t.Helper()
	cut = &atomic.Bool{}
	h, err := b.reserve(t.Context(), n, func() { cut.Store(true) })
	if err != nil {
		t.Fatalf("reserve %d: %v", n, err)
	}
	return h, cut
}

func TestABudgetCutsTheOldestBodyWhoseGraceIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		first, firstCut := b.mustReserve(t, 5)
		time.Sleep(time.Second / 2)
		second, secondCut := b.mustReserve(t, 5)
		got := make(chan *hold)
		go func() {
			h, _ := b.reserve(t.Context(), 3, func() {})
			got <- h
		}()
		synctest.Wait()
		if firstCut.Load() {
			t.Error("the first body was cut within its grace")
		}
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if !firstCut.Load() || secondCut.Load() {
			t.Errorf("cut the first %t and the second %t, want the first alone", firstCut.Load(), secondCut.Load())
		}
		if !b.arrived(first) {
			t.Error("the first body is not told that it was cut")
		}
		b.release(first)
		third := <-got
		if b.free != 2 {
			t.Errorf("%d bytes are free, want 2", b.free)
		}
		b.release(second)
		b.release(third)
		if b.free != 10 || b.cut != 0 || b.arriving.Len() != 0 || b.queue.Len() != 0 {
			t.Errorf("at the end: %d free, %d cut, %d arriving, %d in the queue", b.free, b.cut, b.arriving.Len(), b.queue.Len())
		}
	})
}

func TestABudgetDoesNotCutABodyThatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		h, cut := b.mustReserve(t, 10)
		if b.arrived(h) {
			t.Error("the body was cut though nobody waited")
		}
		if _, err := b.reserve(t.Context(), 1, func() {}); !errors.Is(err, webhook.ErrOverloaded) {
			t.Errorf("reserve: %v, want ErrOverloaded", err)
		}
		if cut.Load() {
			t.Error("a body that had arrived was cut")
		}
		b.release(h)
		b.mustReserve(t, 10)
	})
}

func TestABudgetServesInTurnAndBoundsItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		h, _ := b.mustReserve(t, 10)
		b.arrived(h)
		served := make(chan int64, 2)
		for _, n := range []int64{8, 5} {
			go func() {
				waiting, err := b.reserve(t.Context(), n, func() {})
				if err != nil {
					t.Error(err)
					return
				}
				served <- n
				b.release(waiting)
			}()
			synctest.Wait()
		}
		if _, err := b.reserve(t.Context(), 1, func() {}); !errors.Is(err, webhook.ErrOverloaded) {
			t.Errorf("a third in the queue: %v, want ErrOverloaded", err)
		}
		b.release(h)
		if first := <-served; first != 8 {
			t.Errorf("the body of %d bytes was served first, want 8", first)
		}
		<-served
	})
}

func TestABodyThatGivesUpLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		h, _ := b.mustReserve(t, 8)
		b.arrived(h)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		small := make(chan error, 1)
		go func() {
			time.Sleep(time.Second / 2)
			_, err := b.reserve(t.Context(), 2, func() {})
			small <- err
		}()
		if _, err := b.reserve(ctx, 5, func() {}); !errors.Is(err, webhook.ErrOverloaded) {
			t.Errorf("reserve: %v, want ErrOverloaded", err)
		}
		if err := <-small; err != nil {
			t.Errorf("the next in the queue: %v", err)
		}
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// tamperedStore is a memoryStore in which another client has altered records: Merge finds those that altered picks.
type tamperedStore struct {
	*memoryStore
	altered func(name string) bool
}

func (s tamperedStore) Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	s.mu.Lock()
	altered := s.altered(record.Name)
	s.mu.Unlock()
	if altered {
		return nil, audit.ErrAltered
	}
	return s.memoryStore.Merge(ctx, record, last)
}

func TestAnAlteredRecordIsStoredAgainUnderAnotherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		var altered string
		h := start(t, Options{Store: tamperedStore{store, func(name string) bool { return name == altered }}, Mode: Blocking})
		first := h.Record(t.Context(), by("mallory"))
		altered = first
		second := h.Record(t.Context(), by("mallory"))
		h.Record(t.Context(), by("mallory"))
		synctest.Wait()
		if second == first || store.records[second] == nil || store.records[second].Spec.Count != 3 {
			t.Errorf("the second record is %q, want one with 3 writes: %v", second, store.records)
		}
		if got := testutil.ToFloat64(h.metrics.altered); got != 1 || h.outage.Load() != nil {
			t.Errorf("%v records counted as altered, want 1 (unavailable: %t)", got, h.outage.Load() != nil)
		}
	})
}

func TestACountThatAnotherClientRaisedSwallowsNothing(t *testing.T) {
	for _, count := range []int64{math.MaxInt64, 3} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemoryStore()
			h := start(t, Options{Store: store, Mode: Blocking})
			name := h.Record(t.Context(), by("mallory"))
			synctest.Wait()
			first := store.records[name]
			first.Spec.Count, first.Spec.Counts[0].Count = count, count
			name = h.Record(t.Context(), by("mallory"))
			synctest.Wait()
			second := store.records[name]
			if second == first || second.Spec.Count != 2 || testutil.ToFloat64(h.metrics.altered) != 1 {
				t.Errorf("count %d: the writes are in %v", count, store.records)
			}
		})
	}
}

func TestADeletedRecordIsStoredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		gone := map[string]bool{}
		h := start(t, Options{Store: tamperedStore{store, func(name string) bool { return gone[name] }}, Mode: Blocking})
		name := h.Record(t.Context(), by("mallory"))
		synctest.Wait()
		store.mu.Lock()
		gone[name] = true
		clear(store.records)
		store.mu.Unlock()
		time.Sleep(audit.Window + 4*cleanupInterval)
		synctest.Wait()
		if store.total() != 1 || testutil.ToFloat64(h.metrics.altered) != 1 || len(h.records) != 0 {
			t.Errorf("%d writes stored, %v altered, %d in memory: want 1, 1, 0", store.total(), testutil.ToFloat64(h.metrics.altered), len(h.records))
		}
	})
}

func TestARecordThatIsAlteredAgainAndAgainStaysPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, names := newMemoryStore(), map[string]bool{}
		everyOne := func(name string) bool { names[name] = true; return true }
		h := start(t, Options{Store: tamperedStore{store, everyOne}, Mode: Blocking, SpoolDir: t.TempDir()})
		h.Record(t.Context(), by("mallory"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(names) != maxMoves+1 || h.pending() != 1 || h.spoolBytes() == 0 {
			t.Errorf("%d names, %d pending, %d bytes of spool: want %d, 1 and some", len(names), h.pending(), h.spoolBytes(), maxMoves+1)
		}
	})
}

func TestACheckThatFailsKeepsNothingInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		h.Record(t.Context(), by("jane"))
		store.set(errors.New("gone"), false)
		time.Sleep(audit.Window + 4*cleanupInterval)
		synctest.Wait()
		if len(h.records) != 0 || h.pending() != 0 {
			t.Errorf("%d in memory, %d pending, want none", len(h.records), h.pending())
		}
	})
}

func TestAnOutageThatLastsIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		store.set(errors.New("no such kind"), false)
		h.Record(t.Context(), by("jane"))
		if got := h.Problem(); got != "" {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(problemAfter)
		if got := h.Problem(); got != "no such kind" {
			t.Errorf("after some time: %q", got)
		}
		store.set(nil, false)
		time.Sleep(2 * lastRetry)
		if got := h.Problem(); got != "" {
			t.Errorf("after it is over: %q", got)
		}
	})
}

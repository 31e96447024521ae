// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// memoryStore is an API server that may be away, slow, or lose its answers.
type memoryStore struct {
	mu      sync.Mutex
	records map[string]*v1alpha1.AuditRecord
	merges  int
	// err is what Merge fails with; stores says that the record is stored all the same.
	err    error
	stores bool
	takes  time.Duration
}

func newMemoryStore() *memoryStore { return &memoryStore{records: map[string]*v1alpha1.AuditRecord{}} }

func (s *memoryStore) Merge(ctx context.Context, record, _ *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	s.mu.Lock()
	takes, err, stores := s.takes, s.err, s.stores
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merges++
	if err != nil && !stores {
		return nil, err
	}
	live := s.records[record.Name]
	if live == nil {
		live = record.DeepCopy()
		s.records[record.Name] = live
	}
	audit.Merge(live, record)
	return live.DeepCopy(), err
}

func (s *memoryStore) set(err error, stores bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.stores = err, stores
}

func (s *memoryStore) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.merges
}

func (s *memoryStore) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := int64(0)
	for _, record := range s.records {
		total += record.Spec.Count
	}
	return total
}

// harness is a recorder that runs in a synctest bubble.
type harness struct {
	*Recorder
	registry *prometheus.Registry
	log      *bytes.Buffer
	end      func()
}

func start(t *testing.T, options Options) *harness {
	t.Helper()
	h := &harness{registry: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	options.Registry, options.Log = h.registry, slog.New(slog.NewTextHandler(h.log, nil))
	if options.Replica == "" {
		options.Replica = "replica"
	}
	var err error
	if h.Recorder, err = New(options); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	h.end = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(h.end)
	return h
}

func by(user string) audit.Event {
	return audit.Event{
		Time: time.Now(), Outcome: v1alpha1.Denied, Operation: "UPDATE", Object: v1alpha1.ParseObjectReference("secrets/kube-system/x"),
		Reason: "ReservedUpdate", User: v1alpha1.User{Name: user}, Source: v1alpha1.SourceGuard,
	}
}

func TestAnAnswerWaitsUntilItsRecordIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		name := h.Record(t.Context(), by("jane"))
		synctest.Wait()
		if store.records[name] == nil || store.records[name].Spec.Count != 1 {
			t.Fatalf("stored when the answer goes out: %v", store.records)
		}
	})
}

func TestAnAnswerDoesNotOutliveItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		store.takes = time.Hour
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir()})
		ctx, cancel := context.WithTimeout(t.Context(), blockingTimeout/2)
		defer cancel()
		began := time.Now()
		h.Record(ctx, by("jane"))
		if took := time.Since(began); took != blockingTimeout/2 || h.outage.Load() != nil {
			t.Errorf("it waited %v and found an outage: %t, want %v and none", took, h.outage.Load() != nil, blockingTimeout/2)
		}
	})
}

func TestARecordIsAnnouncedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var announced []string
		h := start(t, Options{Store: newMemoryStore(), Mode: Blocking, Announce: func(r *v1alpha1.AuditRecord) {
			announced = append(announced, r.Spec.User.Name)
		}})
		for _, user := range []string{"jane", "jane", "eve", "jane"} {
			h.Record(t.Context(), by(user))
		}
		synctest.Wait()
		if got := strings.Join(announced, ","); got != "jane,eve" {
			t.Errorf("announced %s, want jane,eve", got)
		}
	})
}

func TestManyAnswersShareOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		store.takes = 10 * time.Millisecond
		h := start(t, Options{Store: store, Mode: Blocking})
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() { h.Record(t.Context(), by("jane")) })
		}
		group.Wait()
		synctest.Wait()
		if store.total() != 50 || store.merges > 3 {
			t.Errorf("%d events stored by %d writes, want 50 by at most 3", store.total(), store.merges)
		}
	})
}

func TestBatchGathersEventsAndAnswersOutOfTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Batch, SpoolDir: t.TempDir()})
		for range 20 {
			h.Record(t.Context(), by("jane"))
		}
		synctest.Wait()
		if writes := store.writes(); writes != 0 || h.spoolBytes() == 0 {
			t.Errorf("%d writes and a spool of %d bytes before the interval", writes, h.spoolBytes())
		}
		time.Sleep(2 * batchInterval)
		synctest.Wait()
		if store.total() != 20 || store.merges != 1 {
			t.Errorf("%d events stored by %d writes, want 20 by 1", store.total(), store.merges)
		}
		time.Sleep(2 * cleanupInterval)
		if h.spoolBytes() != 0 {
			t.Errorf("the spool keeps %d bytes of what is stored", h.spoolBytes())
		}
	})
}

// The API server may have stored what it answered with an error: the attempts that follow count nothing twice.
func TestAnAnswerThatIsLostCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir()})
		store.set(errors.New("connection reset"), true)
		for range 5 {
			h.Record(t.Context(), by("jane"))
			time.Sleep(time.Second)
		}
		store.set(nil, false)
		h.Record(t.Context(), by("jane"))
		time.Sleep(2 * lastRetry)
		if store.total() != 6 || h.pending() != 0 {
			t.Errorf("%d events stored and %d records waiting, want 6 and 0", store.total(), h.pending())
		}
	})
}

func TestASlowStoreDelaysAnAnswerOnceAndNotTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		store.takes = time.Hour
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir()})
		began := time.Now()
		h.Record(t.Context(), by("jane"))
		if took := time.Since(began); took != blockingTimeout {
			t.Errorf("the first answer waited %v, want %v", took, blockingTimeout)
		}
		began = time.Now()
		h.Record(t.Context(), by("jane"))
		if took := time.Since(began); took != 0 {
			t.Errorf("the second answer waited %v, want none", took)
		}
		if got := testutil.ToFloat64(h.metrics.events.WithLabelValues(placeSpool)); got != 2 {
			t.Errorf("%v events in the spool, want 2", got)
		}
	})
}

func TestTheNextProcessStoresWhatAKilledOneHasSpooled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, directory := newMemoryStore(), t.TempDir()
		store.set(errors.New("no route to host"), false)
		killed := start(t, Options{Store: store, Mode: Blocking, SpoolDir: directory, Replica: "a-1"})
		for range 7 {
			killed.Record(t.Context(), by("jane"))
		}
		// A kill leaves the file as it is at that moment, perhaps with half a line.
		left, err := os.ReadFile(filepath.Join(directory, spoolName))
		if err != nil {
			t.Fatal(err)
		}
		next := t.TempDir()
		if err := os.WriteFile(filepath.Join(next, spoolName), append(left, `{"metadata":{"na`...), 0o600); err != nil {
			t.Fatal(err)
		}
		store.set(nil, false)
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: next, Replica: "a-2"})
		h.Record(t.Context(), by("jane"))
		time.Sleep(2 * cleanupInterval)
		h.Record(t.Context(), by("jane"))
		if store.total() != 9 || h.pending() != 0 || h.spoolBytes() != 0 {
			t.Errorf("%d events stored, %d records waiting, %d bytes of spool: want 9, 0, 0", store.total(), h.pending(), h.spoolBytes())
		}
		if !strings.Contains(h.log.String(), "count=1") {
			t.Errorf("the broken line is not logged:\n%s", h.log)
		}
	})
}

func TestRecordsThatAreOverLeaveTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, Options{Store: newMemoryStore(), Mode: Blocking})
		for i := range 100 {
			h.Record(t.Context(), by(fmt.Sprintf("user-%d", i)))
		}
		time.Sleep(audit.Window + 4*cleanupInterval) // one round reads each record once more, the next one evicts it
		synctest.Wait()
		if len(h.records) != 0 {
			t.Errorf("%d records are still in memory", len(h.records))
		}
	})
}

func TestAClockThatIsSetBackLosesNoCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		early := by("jane")
		for range 3 {
			h.Record(t.Context(), early)
		}
		time.Sleep(audit.Window + 3*cleanupInterval)
		h.Record(t.Context(), early)
		synctest.Wait()
		if store.total() != 4 || len(store.records) != 1 {
			t.Errorf("%d events in %d records, want 4 in 1", store.total(), len(store.records))
		}
	})
}

func TestWhatIsLostIsCounted(t *testing.T) {
	for name, test := range map[string]struct {
		spool bool
		lost  float64
	}{
		"without a spool, what the API server does not take is lost": {false, 3},
		"with a spool, nothing is lost":                              {true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemoryStore()
				store.set(errors.New("gone"), false)
				options := Options{Store: store, Mode: Blocking}
				if test.spool {
					options.SpoolDir = t.TempDir()
				}
				h := start(t, options)
				for range 3 {
					h.Record(t.Context(), by("jane"))
				}
				h.end()
				if got := testutil.ToFloat64(h.metrics.lost); got != test.lost {
					t.Errorf("lost %v, want %v", got, test.lost)
				}
			})
		})
	}
}

// The spool is bounded: it is compacted, and a record that does not fit even then stays in memory.
func TestAFullSpoolIsCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		store.set(errors.New("gone"), false)
		const bound = 20_000
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir(), SpoolVolume: volumePart * bound})
		for range 500 {
			h.Record(t.Context(), by("jane"))
		}
		if size := h.spoolBytes(); size > bound || size == 0 {
			t.Errorf("the spool has %d bytes, want at most %d", size, bound)
		}
		if got := testutil.ToFloat64(h.metrics.events.WithLabelValues(placeSpool)); got != 500 {
			t.Errorf("%v events are safe in the spool, want 500", got)
		}
		for i := range 100 {
			h.Record(t.Context(), by(fmt.Sprintf("user-%d", i)))
		}
		if got := testutil.ToFloat64(h.metrics.events.WithLabelValues(placeMemory)); got == 0 {
			t.Error("100 records fit into a spool that has no room for them")
		}
		store.set(nil, false)
		time.Sleep(2 * lastRetry)
		if store.total() != 600 {
			t.Errorf("%d events stored in the end, want 600", store.total())
		}
	})
}

func TestBadOptionsAreRefused(t *testing.T) {
	directory := t.TempDir()
	held, _, _, err := openSpool(directory, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options Options
		want    error // nil for any
	}{
		"no mode":                            {Options{}, nil},
		"batch without a spool":              {Options{Mode: Batch}, nil},
		"durable without a spool":            {Options{Mode: Durable}, nil},
		"a spool that another process holds": {Options{Mode: Batch, SpoolDir: directory}, errSpoolInUse},
		"a spool directory that is a file":   {Options{Mode: Batch, SpoolDir: file}, syscall.ENOTDIR},
		"a spool directory below a file":     {Options{Mode: Batch, SpoolDir: filepath.Join(file, "x")}, syscall.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.Registry, test.options.Log = prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
			if _, err := New(test.options); err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

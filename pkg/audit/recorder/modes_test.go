// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The table of docs/decisions/audit-records.md: which of five events a failure loses. Three are older than a sync, two are not.
func TestWhatEachModeLoses(t *testing.T) {
	const early, late = 3, 2
	for _, test := range []struct {
		mode                   Mode
		killed, dead           int64 // the process, or its node, while the API server is there
		killedAlone, deadAlone int64 // the same while the API server is away
	}{
		{Blocking, 0, 0, 0, 0},
		{Durable, 0, 0, 0, 0},
		{Batch, 0, late, 0, late},
	} {
		for _, failure := range []struct {
			name     string
			away     bool // the API server
			nodeDies bool
			lost     int64
		}{
			{"the guard is killed", false, false, test.killed},
			{"the node dies", false, true, test.dead},
			{"the guard is killed during an outage", true, false, test.killedAlone},
			{"the node dies during an outage", true, true, test.deadAlone},
		} {
			t.Run(string(test.mode)+": "+failure.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store, disk := newMemoryStore(), &syncedFile{path: filepath.Join(t.TempDir(), spoolName)}
					if failure.away {
						store.set(errors.New("no route to host"), false)
					}
					h := start(t, Options{Store: store, Mode: test.mode, SpoolDir: filepath.Dir(disk.path), Replica: "a-1"})
					h.spool.datasync = disk.sync
					for range early {
						h.Record(t.Context(), by("jane"))
					}
					time.Sleep(syncInterval + time.Millisecond)
					for range late {
						h.Record(t.Context(), by("jane"))
					}
					left := disk.written(t)
					if failure.nodeDies {
						left = disk.synced()
					}
					if got := nextProcess(t, store, left).total(); got != early+late-failure.lost {
						t.Errorf("%d of %d events are recorded in the end, want %d", got, early+late, early+late-failure.lost)
					}
				})
			})
		}
	}
}

// syncedFile knows what a power failure leaves of a file.
type syncedFile struct {
	path string
	last atomic.Value
}

func (f *syncedFile) sync(*os.File) error {
	content, err := os.ReadFile(f.path)
	f.last.Store(content)
	return err
}

func (f *syncedFile) synced() []byte {
	content, _ := f.last.Load().([]byte)
	return content
}

func (f *syncedFile) written(t *testing.T) []byte {
	t.Helper()
	content, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// nextProcess returns what is stored after another process has found the records of the first one, and what that left in its spool.
func nextProcess(t *testing.T, before *memoryStore, left []byte) *memoryStore {
	t.Helper()
	store, directory := newMemoryStore(), t.TempDir()
	before.mu.Lock()
	for name, record := range before.records {
		store.records[name] = record.DeepCopy()
	}
	before.mu.Unlock()
	if err := os.WriteFile(filepath.Join(directory, spoolName), left, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Store: store, Mode: Blocking, SpoolDir: directory, Replica: "a-2"})
	time.Sleep(2 * cleanupInterval)
	return store
}

// A sync that fails is logged once, however often it is tried.
func TestASpoolThatCannotBeSyncedIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, Options{Store: newMemoryStore(), Mode: Batch, SpoolDir: t.TempDir()})
		h.spool.datasync = func(*os.File) error { return errors.New("input/output error") }
		h.Record(t.Context(), by("jane"))
		time.Sleep(5 * syncInterval)
		synctest.Wait()
		if got := strings.Count(h.log.String(), "input/output error"); got != 1 {
			t.Errorf("logged %d times, want once:\n%s", got, h.log)
		}
	})
}

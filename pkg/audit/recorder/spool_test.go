// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// startUnavailable returns a recorder with a spool whose store fails, and a count of the syncs of the spool.
func startUnavailable(t *testing.T) (*harness, *memoryStore, *atomic.Int64) {
	t.Helper()
	store, syncs := newMemoryStore(), &atomic.Int64{}
	store.set(errors.New("gone"), false)
	h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir()})
	synctest.Wait()
	h.spool.datasync = func(file *os.File) error {
		syncs.Add(1)
		return datasync(file)
	}
	return h, store, syncs
}

func TestAnEventIsOnTheDiskBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, syncs := startUnavailable(t)
		for want := range int64(3) {
			h.Record(t.Context(), by("jane"))
			if got := syncs.Load(); got != want+1 {
				t.Errorf("%d syncs before answer %d, want one for each", got, want+1)
			}
		}
		if err := h.compactSpool(); err != nil || syncs.Load() != 4 {
			t.Errorf("%d syncs after a compaction (%v), want one more", syncs.Load(), err)
		}
	})
}

func TestLinesThatWaitTogetherShareOneSync(t *testing.T) {
	s, _, _, err := openSpool(t.TempDir(), maxSpoolBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	syncs := 0
	s.datasync = func(*os.File) error { syncs++; return nil }
	var last uint64
	for range 3 {
		if last, err = s.write([]byte("{}\n")); err != nil {
			t.Fatal(err)
		}
	}
	for line := range last {
		if err := s.sync(line + 1); err != nil {
			t.Fatal(err)
		}
	}
	if syncs != 1 {
		t.Errorf("%d syncs of three lines, want 1", syncs)
	}
}

func TestASpoolTakesItsLastByte(t *testing.T) {
	s, _, _, err := openSpool(t.TempDir(), 6)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	for i, want := range []error{nil, nil, errSpoolFull} {
		if _, err := s.write([]byte("{}\n")); !errors.Is(err, want) {
			t.Errorf("line %d: got %v, want %v", i+1, err, want)
		}
	}
}

// Under its second name, nothing of a record is on the disk.
func TestARecordThatMovesOnIsNotSafeYet(t *testing.T) {
	event := by("jane")
	p := newPending(event.Record("replica", 1), "replica")
	p.count(&event)
	p.stored, p.spooled = 1, 1
	if p.moveOn(); p.unsafe() != 1 {
		t.Errorf("%d events are in memory only, want 1", p.unsafe())
	}
}

func TestCompactionKeepsOnlyWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store, _ := startUnavailable(t)
		h.Record(t.Context(), by("jane"))
		store.set(nil, false)
		time.Sleep(firstRetry + time.Millisecond) // stored, and still in the spool
		store.set(errors.New("gone"), false)
		waiting := h.Record(t.Context(), by("mallory"))
		if err := h.compactSpool(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(h.spool.directory, spoolName))
		if err != nil || strings.Count(string(content), "\n") != 1 || !strings.Contains(string(content), waiting) {
			t.Errorf("the spool has %q (%v), want one line of %s", content, err, waiting)
		}
	})
}

func TestAnOutageIsLoggedOnceAndItsEndToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store, _ := startUnavailable(t)
		for range 3 {
			h.Record(t.Context(), by("jane"))
			time.Sleep(time.Second)
		}
		store.set(nil, false)
		time.Sleep(2 * lastRetry)
		synctest.Wait()
		log := h.log.String()
		if strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "err=gone") ||
			strings.Count(log, "can be stored again") != 1 {
			t.Errorf("the log has\n%s", log)
		}
	})
}

func TestADiskErrorLeavesTheEventInMemory(t *testing.T) {
	full := func(h *harness) {
		file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			panic(err)
		}
		_ = h.spool.file.Close()
		h.spool.file = file
	}
	for name, test := range map[string]struct {
		fail func(*harness)
		want error
	}{
		"a full disk": {fail: full, want: syscall.ENOSPC},
		"a failing sync": {
			fail: func(h *harness) { h.spool.datasync = func(*os.File) error { return syscall.EIO } }, want: syscall.EIO,
		},
		"a failing sync at a compaction": {
			fail: func(h *harness) {
				h.spool.datasync, h.spool.size = func(*os.File) error { return syscall.EIO }, maxSpoolBytes
			}, want: syscall.EIO,
		},
		"a directory that is gone at a compaction": {
			fail: func(h *harness) { h.spool.directory, h.spool.size = "/dev/null", maxSpoolBytes }, want: syscall.ENOTDIR,
		},
		"a directory in place of the new file": {
			fail: func(h *harness) {
				h.spool.size = maxSpoolBytes
				if err := os.Mkdir(filepath.Join(h.spool.directory, spoolName+".new"), 0o700); err != nil {
					panic(err)
				}
			}, want: syscall.EISDIR,
		},
		"a spool without room for one record": {fail: func(h *harness) { h.spool.maxBytes = 10 }, want: errSpoolFull},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, store, _ := startUnavailable(t)
				test.fail(h)
				h.Record(t.Context(), by("jane"))
				if got := testutil.ToFloat64(h.metrics.events.WithLabelValues(placeMemory)); got != 1 {
					t.Errorf("%v events in memory, want 1", got)
				}
				if !strings.Contains(h.log.String(), test.want.Error()) {
					t.Errorf("the log does not have %q:\n%s", test.want, h.log)
				}
				store.set(nil, false)
				time.Sleep(2 * lastRetry)
				if store.total() != 1 {
					t.Errorf("%d events stored in the end, want 1", store.total())
				}
			})
		})
	}
}

func TestASpoolThatCannotBeEmptiedIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store, _ := startUnavailable(t)
		h.Record(t.Context(), by("jane"))
		_ = h.spool.file.Close()
		store.set(nil, false)
		time.Sleep(2 * cleanupInterval)
		synctest.Wait()
		if !strings.Contains(h.log.String(), "failed to empty the spool") {
			t.Errorf("the log has\n%s", h.log)
		}
	})
}

// A Pod leaves with its spool, so that a recorder stores at its end what it can, and leaves an empty file.
func TestARecorderStoresItsSpoolAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, store, _ := startUnavailable(t)
		for range 3 {
			h.Record(t.Context(), by("jane"))
		}
		store.set(nil, false)
		h.end()
		info, err := os.Stat(filepath.Join(h.options.SpoolDir, spoolName))
		if err != nil || info.Size() != 0 || store.total() != 3 {
			t.Errorf("%d events stored, want 3; the spool: %v, %v", store.total(), info, err)
		}
	})
}

// The kubelet evicts a Pod whose volume is too full, also while a compaction has two files in it.
func TestASpoolNeverOutgrowsItsVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		store.set(errors.New("gone"), false)
		const volume = 40_000
		h := start(t, Options{Store: store, Mode: Blocking, SpoolDir: t.TempDir(), SpoolVolume: volume})
		most := int64(0)
		h.spool.datasync = func(file *os.File) error {
			used := int64(0)
			entries, err := os.ReadDir(h.options.SpoolDir)
			for _, entry := range entries {
				if info, err := entry.Info(); err == nil {
					used += info.Size()
				}
			}
			most = max(most, used)
			return errors.Join(err, datasync(file))
		}
		for i := range 300 {
			h.Record(t.Context(), by(fmt.Sprintf("user-%d", i%10)))
		}
		if most > volume || most <= volume/volumePart {
			t.Errorf("the spool used up to %d bytes of its volume of %d, want more than half of it", most, volume)
		}
	})
}

func TestLinesOfAnotherProgramAreBroken(t *testing.T) {
	for name, test := range map[string]struct {
		content         string
		records, broken int
	}{
		"no JSON":                    {"x\n", 0, 1},
		"a record without a name":    {`{"spec":{"counts":[{"replica":"a","count":1}]}}` + "\n", 0, 1},
		"a record that counts none":  {`{"metadata":{"name":"x"}}` + "\n", 0, 1},
		"a line without an end":      {strings.Repeat("x", 2*maxLine), 0, 1},
		"a record among broken ones": {"x\n" + line("a") + "y\n" + line("b"), 2, 2},
		"two lines of one record":    {line("a") + line("b") + line("a"), 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			if err := os.WriteFile(filepath.Join(directory, spoolName), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			s, records, broken, err := openSpool(directory, maxSpoolBytes)
			if err != nil || len(records) != test.records || broken != test.broken {
				t.Fatalf("%d records, %d broken, %v: want %d and %d", len(records), broken, err, test.records, test.broken)
			}
			_ = s.close()
		})
	}
}

func line(name string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"counts":[{"replica":"a","count":1}]}}`, name) + "\n"
}

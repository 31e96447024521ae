// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var errCompile = errors.New("does not compile")

// fakeTool is a program whose build by fakeCompile takes 25 s.
func fakeTool() Tool {
	return Tool{Name: "prog", Package: "example.com/m/prog", Release: Release{Project: "m", Version: "v1.0.0"}}
}

func fakeCompile(builds *atomic.Int32) func(context.Context, Tool, string, string) error {
	return func(_ context.Context, _ Tool, _, output string) error {
		builds.Add(1)
		if err := os.WriteFile(output, []byte("half"), 0o755); err != nil {
			return err
		}
		time.Sleep(25 * time.Second)
		return os.WriteFile(output, []byte("whole"), 0o755)
	}
}

func TestBuildShowsProgressOnceAndIsSilentWhenCached(t *testing.T) {
	cache := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var builds atomic.Int32
		var progress bytes.Buffer
		builder := Builder{CacheDir: cache, Progress: &progress, compile: fakeCompile(&builds)}
		first, err := builder.Build(t.Context(), fakeTool())
		if err != nil {
			t.Fatal(err)
		}
		want := "testbed: building prog v1.0.0 from its Go module; the first build takes minutes, later runs reuse it\n" +
			"testbed: still building prog v1.0.0: 10 s\n" +
			"testbed: still building prog v1.0.0: 20 s\n" +
			"testbed: built prog v1.0.0 in 25 s\n"
		if diff := cmp.Diff(want, progress.String()); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		progress.Reset()
		second, err := builder.Build(t.Context(), fakeTool())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("paths (-first +second):\n%s", diff)
		}
		if builds.Load() != 1 || progress.Len() != 0 {
			t.Errorf("the second call: %d builds in all and progress %q, want 1 and none", builds.Load(), &progress)
		}
	})
}

func TestTwoBuildersBuildOnceAndTheSecondReportsThatItWaits(t *testing.T) {
	cache := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var builds atomic.Int32
		var progress [2]bytes.Buffer
		var group sync.WaitGroup
		for i := range progress {
			group.Go(func() {
				builder := Builder{CacheDir: cache, Progress: &progress[i], compile: fakeCompile(&builds)}
				paths, err := builder.Build(t.Context(), fakeTool())
				if err != nil {
					t.Error(err)
					return
				}
				requireWhole(t, paths["prog"])
			})
		}
		group.Wait()
		if got := builds.Load(); got != 1 {
			t.Errorf("%d builds, want 1", got)
		}
		waiting := "testbed: waiting for another program that builds m v1.0.0\n"
		got := []string{progress[0].String(), progress[1].String()}
		if got[0] != waiting && got[1] != waiting {
			t.Errorf("progress of the builders: %q, want one to be %q", got, waiting)
		}
	})
}

func requireWhole(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	if string(content) != "whole" {
		t.Errorf("the program contains %q, want it complete", content)
	}
}

func TestAFailedBuildLeavesNoProgramAndCanBeRepeated(t *testing.T) {
	cache := t.TempDir()
	broken := Builder{CacheDir: cache, compile: func(_ context.Context, _ Tool, _, output string) error {
		return errors.Join(os.WriteFile(output, []byte("half"), 0o755), errCompile)
	}}
	if _, err := broken.Build(t.Context(), fakeTool()); !errors.Is(err, errCompile) {
		t.Fatalf("Build = %v, want errCompile", err)
	}
	synctest.Test(t, func(t *testing.T) {
		var builds atomic.Int32
		paths, err := Builder{CacheDir: cache, compile: fakeCompile(&builds)}.Build(t.Context(), fakeTool())
		if err != nil {
			t.Fatal(err)
		}
		requireWhole(t, paths["prog"])
	})
}

func TestAWaitingBuilderEndsWithItsContext(t *testing.T) {
	cache := t.TempDir()
	entry := filepath.Join(cache, "m-v1.0.0")
	if err := os.MkdirAll(entry, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFile(t.Context(), filepath.Join(entry, "lock"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	builder := Builder{CacheDir: cache, Progress: writerFunc(func([]byte) { cancel() })}
	if _, err := builder.Build(ctx, fakeTool()); !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v, want context.Canceled", err)
	}
}

func TestACachedProgramIsFoundDuringAnotherBuild(t *testing.T) {
	builder := Builder{CacheDir: t.TempDir(), compile: func(_ context.Context, _ Tool, _, output string) error {
		return os.WriteFile(output, []byte("whole"), 0o755)
	}}
	if _, err := builder.Build(t.Context(), fakeTool()); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFile(t.Context(), filepath.Join(builder.CacheDir, "m-v1.0.0", "lock"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a Build that needs the lock fails at once
	if _, err := builder.Build(ctx, fakeTool()); err != nil {
		t.Errorf("Build = %v, want the program without the lock", err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}

func TestRunGoShowsDiagnosticsAndEndsWithItsContext(t *testing.T) {
	if _, err := runGo(t.Context(), t.TempDir(), "no-such-command"); err == nil || !strings.Contains(err.Error(), "no-such-command") {
		t.Errorf("error = %v, want the output of the go command", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runGo(ctx, t.TempDir(), "version"); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
}

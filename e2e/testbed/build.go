// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// A Builder builds tools into a cache directory and finds them there again. The zero value is ready to use; a Builder
// may be used by several goroutines, and several programs may share one cache directory.
type Builder struct {
	// CacheDir holds one directory per release. Empty means apigw-guardian/bin in the user's cache directory
	// ([os.UserCacheDir]).
	CacheDir string
	// Progress receives lines for people while something is built or waited for, and nothing when all is cached.
	// Nil discards them. It must allow calls from several goroutines if Build is called from several.
	Progress io.Writer

	// compile builds a tool in a module directory into a file; nil means the go command. Tests replace it.
	compile func(ctx context.Context, tool Tool, moduleDir, output string) error
}

// Build returns the paths of the tools' programs, by name, and builds first those that the cache lacks. A first
// build takes minutes and needs the go command and, unless Go's module cache has them, the modules from the network;
// it is not repeated. A program appears in the cache whole or not at all. While another program builds the same
// release Build waits for it, until ctx ends. Versions that do not exist are reported as [ErrUnresolvedVersion].
func (b Builder) Build(ctx context.Context, tools ...Tool) (map[string]string, error) {
	paths := make(map[string]string, len(tools))
	for _, tool := range tools {
		path, err := b.buildOne(ctx, tool)
		if err != nil {
			return nil, err
		}
		paths[tool.Name] = path
	}
	return paths, nil
}

func (b Builder) buildOne(ctx context.Context, tool Tool) (string, error) {
	entry, err := b.entry(tool.Release)
	if err != nil {
		return "", err
	}
	path := filepath.Join(entry, runtime.GOOS+"_"+runtime.GOARCH, tool.Name)
	if isFile(path) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("create the cache directory for %s: %w", tool.Name, err)
	}
	unlock, err := lockFile(ctx, filepath.Join(entry, "lock"), func() {
		b.say("waiting for another program that builds %s %s", tool.Release.Project, tool.Release.Version)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFile(path) { // the program that held the lock built it
		return path, nil
	}
	return path, b.buildLocked(ctx, tool, entry, path)
}

// buildLocked builds under another name and renames, so that a program that is being written, or was
// left by a build that was killed, is never taken for a finished one.
func (b Builder) buildLocked(ctx context.Context, tool Tool, entry, path string) error {
	moduleDir := filepath.Join(entry, "module")
	if err := os.MkdirAll(moduleDir, 0o755); err != nil {
		return fmt.Errorf("create the module directory for %s: %w", tool.Name, err)
	}
	partial := path + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("remove what an earlier build of %s left: %w", tool.Name, err)
	}
	if err := b.compileWithProgress(ctx, tool, moduleDir, partial); err != nil {
		return fmt.Errorf("build %s %s: %w", tool.Name, tool.Release.Version, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("put %s into the cache: %w", tool.Name, err)
	}
	return nil
}

// progressInterval is short, so that a user does not think that the build hangs.
const progressInterval = 10 * time.Second

func (b Builder) compileWithProgress(ctx context.Context, tool Tool, moduleDir, output string) error {
	compile := b.compile
	if compile == nil {
		compile = compileWithGo
	}
	title := tool.Name + " " + tool.Release.Version
	start := time.Now()
	b.say("building %s from its Go module; the first build takes minutes, later runs reuse it", title)
	done := make(chan error, 1)
	go func() { done <- compile(ctx, tool, moduleDir, output) }()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				b.say("built %s in %d s", title, int(time.Since(start).Seconds()))
			}
			return err
		case <-ticker.C:
			b.say("still building %s: %d s", title, int(time.Since(start).Seconds()))
		}
	}
}

// compileWithGo is the compile function of a Builder outside tests.
func compileWithGo(ctx context.Context, tool Tool, moduleDir, output string) error {
	if err := writeModule(ctx, moduleDir, tool.Release); err != nil {
		return err
	}
	ldflags := strings.TrimSpace("-s -w " + tool.Release.LDFlags)
	_, err := runGo(ctx, moduleDir, "build", "-mod=mod", "-buildvcs=false", "-trimpath",
		"-ldflags", ldflags, "-o", output, tool.Package)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if reason := explainBuild(ctx, moduleDir, tool.Release); reason != nil {
		return errors.Join(reason, err)
	}
	return err
}

// runGo runs the go command in a directory and returns its standard output, also when it fails. The error holds the end
// of its diagnostics.
func runGo(ctx context.Context, folder string, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = folder
	command.Env = append(os.Environ(),
		// What a user set for other builds must not change these, or the cache would hold programs of unknown kind.
		"GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	// The compilers that the go command started must end with it.
	command.Cancel = func() error { return killGroup(command.Process.Pid) }
	started, err := startProcess("go "+arguments[0], command)
	if err != nil {
		return nil, err
	}
	<-started.done
	if started.err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return stdout.Bytes(), fmt.Errorf("go %s: %w", arguments[0], context.Cause(ctx))
	}
	return stdout.Bytes(), fmt.Errorf("go %s: %w\n%s", arguments[0], started.err, diagnostics(stderr.Bytes()))
}

// diagnostics is the end of what the go command printed, without its long list of downloads.
func diagnostics(stderr []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(stderr) {
		if !bytes.HasPrefix(line, []byte("go: downloading ")) {
			kept = append(kept, line...)
		}
	}
	return lastLines(kept)
}

// entry is the directory of a release in the cache.
func (b Builder) entry(release Release) (string, error) {
	name := release.Project + "-" + release.Version
	if b.CacheDir != "" {
		return filepath.Join(b.CacheDir, name), nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w; set XDG_CACHE_HOME or HOME", err)
	}
	return filepath.Join(cache, "apigw-guardian", "bin", name), nil
}

// say writes one line of progress. A line that cannot be written is nothing to stop a build for.
func (b Builder) say(format string, arguments ...any) {
	if b.Progress != nil {
		_, _ = fmt.Fprintf(b.Progress, "testbed: "+format+"\n", arguments...)
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

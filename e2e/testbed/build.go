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

// A Builder builds tools into a cache directory and finds them there later. The zero value is ready to use. A Builder is safe for
// concurrent use, and several programs may share one cache directory.
type Builder struct {
	// CacheDir has one directory per release. Empty means apigw-guardian/bin in the user's cache directory ([os.UserCacheDir]).
	CacheDir string
	// Progress receives lines of text during builds and waits, and none if all tools are cached. Nil discards them. It must be safe
	// for concurrent use if Build is called concurrently.
	Progress io.Writer

	// compile builds a tool in a module directory into a file. Nil means the go command; tests replace it.
	compile func(ctx context.Context, tool Tool, moduleDir, output string) error
}

// Build returns the paths of the tools' programs by name, and builds those that the cache lacks. The first build takes minutes. It
// needs the go command and, unless they are in Go's module cache, modules from the network. A program appears in the cache
// complete or not at all. Build waits for another program that builds the same release, until ctx ends. It returns
// [ErrUnresolvedVersion] for a version that does not exist.
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
	dir, err := b.releaseDir(tool.Release)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, runtime.GOOS+"_"+runtime.GOARCH, tool.Name)
	if isFile(path) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("create the cache directory for %s: %w", tool.Name, err)
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"), func() {
		b.say("waiting for another program that builds %s %s", tool.Release.Project, tool.Release.Version)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFile(path) { // the program that held the lock built it
		return path, nil
	}
	return path, b.buildLocked(ctx, tool, filepath.Join(dir, "module"), path)
}

// buildLocked builds to another file and renames it, so that an incomplete program never has the final name.
func (b Builder) buildLocked(ctx context.Context, tool Tool, moduleDir, path string) error {
	if err := os.MkdirAll(moduleDir, 0o755); err != nil {
		return fmt.Errorf("create the module directory for %s: %w", tool.Name, err)
	}
	partial := path + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("remove the rest of an earlier build of %s: %w", tool.Name, err)
	}
	if err := b.compileWithProgress(ctx, tool, moduleDir, partial); err != nil {
		return fmt.Errorf("build %s %s: %w", tool.Name, tool.Release.Version, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("put %s into the cache: %w", tool.Name, err)
	}
	return nil
}

// progressInterval is short, so that the build does not seem to hang.
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

// runGo runs the go command in a directory and returns its standard output, even if it fails. The error contains the end of its
// standard error.
func runGo(ctx context.Context, dir string, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = dir
	command.Env = append(os.Environ(),
		// The user's settings for other builds must not change the programs in the cache.
		"GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	// Kill the compilers that the go command has started too.
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

// diagnostics returns the end of the go command's standard error, without its list of downloads.
func diagnostics(stderr []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(stderr) {
		if !bytes.HasPrefix(line, []byte("go: downloading ")) {
			kept = append(kept, line...)
		}
	}
	return lastLines(kept)
}

// releaseDir returns the directory of a release in the cache.
func (b Builder) releaseDir(release Release) (string, error) {
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

// say writes one line of progress. It ignores write errors, which must not stop a build.
func (b Builder) say(format string, arguments ...any) {
	if b.Progress != nil {
		_, _ = fmt.Fprintf(b.Progress, "testbed: "+format+"\n", arguments...)
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

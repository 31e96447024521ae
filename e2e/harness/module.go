// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BuildModule builds the program of a module below e2e, ../certmanager for example, and returns its path. required is the path of the
// module whose version names the program. The program lies in the testbed's cache, where the go command sees that it is up to date and
// does not link it again.
func BuildModule(tb testing.TB, dir, required string) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	version := goIn(tb, dir, "list", "-m", "-f", "{{.Version}}", required)
	folder := filepath.Join(cache, "apigw-guardian", "bin", filepath.Base(strings.TrimSuffix(required, "/v3"))+"-"+version)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		tb.Fatal(err)
	}
	program := filepath.Join(folder, filepath.Base(dir))
	goIn(tb, dir, "build", "-ldflags=-s -w", "-o", program, ".")
	return program
}

// ModuleDir returns the directory of a module that the module in dir requires.
func ModuleDir(tb testing.TB, dir, required string) string {
	tb.Helper()
	return goIn(tb, dir, "list", "-m", "-f", "{{.Dir}}", required)
}

// goIn runs the go command. It links in the directory of the program, from which a rename replaces an older one.
func goIn(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	command := exec.CommandContext(tb.Context(), "go", args...)
	command.Dir, command.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=auto")
	output, err := command.Output()
	if err != nil {
		tb.Fatalf("go %q: %v\n%s", args, err, output)
	}
	return strings.TrimSpace(string(output))
}

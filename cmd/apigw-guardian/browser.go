// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// openBrowser shows a secret address. Every user of the machine can read a command line, so the browser opens a private file
// that redirects there. tidy, never nil, removes the file.
func openBrowser(ctx context.Context, address string) (tidy func(), err error) {
	dir, err := os.MkdirTemp("", "apigw-guardian-web-")
	if err != nil {
		return func() {}, fmt.Errorf("make a directory for the browser: %w", err)
	}
	tidy = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "review.html")
	if err := os.WriteFile(file, redirectTo(address), 0o600); err != nil {
		return tidy, fmt.Errorf("write a page for the browser: %w", err)
	}
	name, args := browserCommand(runtime.GOOS, file)
	// The browser outlives this program.
	command := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if err := command.Start(); err != nil {
		return tidy, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = command.Wait() }()
	return tidy, nil
}

// redirectTo returns a page that redirects a browser.
func redirectTo(address string) []byte {
	return fmt.Appendf(nil, `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url=%[1]s"><title>Denied requests</title><a href="%[1]s">Show the denied requests</a>
`, html.EscapeString(address))
}

func browserCommand(system, file string) (string, []string) {
	switch system {
	case "darwin":
		return "open", []string{file}
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", file}
	default:
		return "xdg-open", []string{file}
	}
}

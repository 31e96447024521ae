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

// openBrowser shows an address that nobody else may learn: a command line can be read by every user of the machine, so the
// browser is given a file of the user's own that leads there. tidy, never nil, removes it.
func openBrowser(ctx context.Context, address string) (tidy func(), err error) {
	dir, err := os.MkdirTemp("", "apigw-guardian-web-")
	if err != nil {
		return func() {}, fmt.Errorf("make a folder for the browser: %w", err)
	}
	tidy = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "review.html")
	if err := os.WriteFile(file, leadingTo(address), 0o600); err != nil {
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

// leadingTo is a page that sends a browser on.
func leadingTo(address string) []byte {
	return fmt.Appendf(nil, `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url=%[1]s"><title>Denied requests</title><a href="%[1]s">Go on to the denied requests</a>
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

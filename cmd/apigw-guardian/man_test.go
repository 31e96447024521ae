// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The generator is a test because it needs the commands of this package, and must not be in the program.
var manDir = flag.String("man", "", "write the man pages into this directory")

func TestEachCommandHasAManPage(t *testing.T) {
	dir := *manDir
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // everybody may read a manual
		t.Fatal(err)
	}
	t.Setenv("HOME", "/home/user") // no page shows a path of this machine
	root := newRoot()
	root.DisableAutoGenTag = true
	root.CompletionOptions.HiddenDefaultCmd = true
	header := &doc.GenManHeader{Section: "1", Source: "apigw-guardian", Manual: "apigw-guardian"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		t.Fatal(err)
	}
	pages := 0
	for commands := []*cobra.Command{root}; len(commands) > 0; commands = commands[1:] {
		command := commands[0]
		commands = append(commands, command.Commands()...)
		if !command.IsAvailableCommand() {
			continue
		}
		pages++
		content, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(command.CommandPath(), " ", "-")+".1"))
		if err != nil || !strings.Contains(string(content), ".TH ") || command.HasExample() != strings.Contains(string(content), ".SH EXAMPLE") {
			t.Errorf("%s: %v\n%s", command.CommandPath(), err, content)
		}
	}
	if pages < 20 {
		t.Errorf("%d pages", pages)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command gotest runs `go test -json` in the root module, and in others meanwhile, and prints a line per package, the whole output
// of tests that fail, the slowest tests, and what the tests have noted for the reader (see e2e/report). Its exit code is that
// of go test.
//
// Usage: gotest [-with=DIRECTORY]... [flags of go test] [-- packages]
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/apigw-guardian/apigw-guardian/e2e/testjson"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "gotest: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	notes, err := os.CreateTemp("", "apigw-guardian-notes-")
	if err != nil {
		return 1, fmt.Errorf("make a file for the notes of the tests: %w", err)
	}
	defer func() { err = errors.Join(err, notes.Close(), os.Remove(notes.Name())) }()
	if err := os.Setenv("E2E_REPORT", notes.Name()); err != nil {
		return 1, fmt.Errorf("name the file for the notes of the tests: %w", err)
	}
	// A terminal sends Ctrl-C to go test as well, which then ends its tests. A SIGTERM is passed on.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := commandLines(args)
	s, codes, failures := newSummary(os.Stdout, slices.Contains(args, "-v")), make([]int, len(lines)), make([]error, len(lines))
	var group sync.WaitGroup
	group.Go(func() { codes[0], failures[0] = testjson.Run(ctx, lines[0], s.out, s.take) })
	for i, line := range lines[1:] { // one after the other, or too many control planes run at once
		codes[i+1], failures[i+1] = testjson.Run(ctx, line, s.out, s.take)
	}
	group.Wait()
	s.finish()
	printNotes(notes)
	return slices.Max(codes), errors.Join(failures...)
}

// commandLines returns the arguments of go for the root module, and for each module that a leading -with=DIRECTORY names.
// In these, the packages after "--" are replaced by all there are.
func commandLines(args []string) [][]string {
	var with []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-with=") {
		with, args = append(with, strings.TrimPrefix(args[0], "-with=")), args[1:]
	}
	flags, packages := args, []string{"./..."}
	if at := slices.Index(args, "--"); at >= 0 {
		flags, packages = args[:at], args[at+1:]
	}
	lines := [][]string{slices.Concat([]string{"test", "-json"}, flags, packages)}
	for _, dir := range with {
		lines = append(lines, slices.Concat([]string{"-C", dir, "test", "-json"}, flags, []string{"./..."}))
	}
	return lines
}

// printNotes prints each line of the notes once.
func printNotes(notes io.Reader) {
	var lines []string
	for scanner := bufio.NewScanner(notes); scanner.Scan(); {
		lines = append(lines, scanner.Text())
	}
	if len(lines) == 0 {
		return
	}
	slices.Sort(lines)
	fmt.Println("==> seen on the real API server")
	fmt.Println(strings.Join(slices.Compact(lines), "\n"))
}

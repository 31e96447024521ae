// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package testjson runs `go test -json` and reads its events.
package testjson

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Module begins the path of each package of the root module.
const Module = "github.com/apigw-guardian/apigw-guardian/"

// Event is a line of `go test -json`, as `go doc test2json` describes it.
type Event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// Run runs go with the arguments, which contain test and -json, and passes on each event. It writes a line that is no event to other.
// code is the exit code of go: tests that fail are no error.
func Run(ctx context.Context, args []string, other io.Writer, take func(Event)) (code int, err error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.Stderr = os.Stderr
	events, err := command.StdoutPipe()
	if err != nil {
		return 1, fmt.Errorf("read the output of go test: %w", err)
	}
	if err := command.Start(); err != nil {
		return 1, fmt.Errorf("start go test: %w", err)
	}
	readErr := Read(events, other, take)
	err = command.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return command.ProcessState.ExitCode(), errors.Join(readErr, err)
}

// Read passes on each event until the end, and writes a line that is no event to other.
func Read(events io.Reader, other io.Writer, take func(Event)) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e Event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(other, "%s", line)
			} else {
				take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/terminal"
)

// output is the program's standard output. It remembers that its reader has left, which is no failure of the program.
type output struct {
	writer io.Writer
	closed atomic.Bool
}

func (o *output) Write(data []byte) (int, error) {
	n, err := o.writer.Write(data)
	if errors.Is(err, syscall.EPIPE) {
		o.closed.Store(true)
	}
	return n, err
}

func (o *output) isClosed() bool { return o.closed.Load() }

// usualWidth is that of a terminal which does not tell.
const usualWidth = 80

// screenOf finds out what the writer shows.
func screenOf(w io.Writer) terminal.Screen {
	screen := terminal.Screen{Now: time.Now(), Place: time.Local}
	if out, isOutput := w.(*output); isOutput {
		w = out.writer
	}
	file, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return screen
	}
	screen.Width = usualWidth
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		screen.Width = width
	}
	// https://no-color.org
	screen.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return screen
}

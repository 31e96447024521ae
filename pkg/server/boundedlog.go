// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

const (
	// noiseLines is how many lines per noiseWindow strangers may cause: enough to see
	// what goes on. A port scanner causes thousands.
	noiseLines = 10
	// noiseWindow is the span that noiseLines counts for.
	noiseWindow = time.Minute
	// noiseBytes bounds the text of one line: a TLS error repeats what the client
	// sent, such as 64 KiB of protocol names.
	noiseBytes = 512
)

// boundedLog writes at most noiseLines lines per noiseWindow, and later how many it
// left out. The count comes with the first line of a later window, or by flush. It
// is an io.Writer for the log.Logger of net/http. Safe for concurrent use.
type boundedLog struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time // start of the window
	lines   int       // written in the window
	dropped int       // left out in the window
}

// Write logs one line of net/http, which is about a connection, never about a body.
func (b *boundedLog) Write(p []byte) (int, error) {
	b.warn("http server", slog.String("err", text.Printable(strings.TrimSpace(string(p)), noiseBytes)))
	return len(p), nil
}

// warn logs msg, if the window has room for it.
func (b *boundedLog) warn(msg string, attrs ...slog.Attr) {
	if b.admit(time.Now()) {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...) //nolint:sloglint // the callers' messages are constants
	}
}

// flush tells what has been left out so far.
func (b *boundedLog) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell()
}

// admit counts a line and says whether it is to be written.
func (b *boundedLog) admit(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) >= noiseWindow {
		b.tell()
		b.since, b.lines = now, 0
	}
	if b.lines == noiseLines {
		b.dropped++
		return false
	}
	b.lines++
	return true
}

// tell writes the count. The caller holds mu.
func (b *boundedLog) tell() {
	if b.dropped == 0 {
		return
	}
	b.log.Warn("connection errors left out of the log", slog.Int("count", b.dropped))
	b.dropped = 0
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

const (
	// noiseLines is how many lines clients may cause at once, and per noiseWindow. A port scanner causes thousands.
	noiseLines  = 10
	noiseWindow = time.Minute
	// noiseBytes bounds the text of one line: a TLS error repeats what the client sent, such as 64 KiB of protocol names.
	noiseBytes = 512
)

// boundedLog writes the lines that any client on the network can cause, within bounds, and counts those that it leaves out. It is
// an io.Writer for the log.Logger of net/http. Safe for concurrent use.
type boundedLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	dropped atomic.Int64
}

func newBoundedLog(log *slog.Logger) *boundedLog {
	return &boundedLog{log: log, limit: rate.NewLimiter(rate.Every(noiseWindow/noiseLines), noiseLines)}
}

// Write logs one line of net/http, which is about a connection, never about a body.
func (b *boundedLog) Write(p []byte) (int, error) {
	b.warn("http server", slog.String("err", text.Printable(strings.TrimSpace(string(p)), noiseBytes)))
	return len(p), nil
}

// warn logs msg if the limit allows it.
func (b *boundedLog) warn(msg string, attrs ...slog.Attr) {
	if !b.limit.Allow() {
		b.dropped.Add(1)
		return
	}
	b.flush()
	b.log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...) //nolint:sloglint // the callers' messages are constants
}

// flush logs how many lines were left out since the last flush.
func (b *boundedLog) flush() {
	if dropped := b.dropped.Swap(0); dropped > 0 {
		b.log.Warn("connection errors left out of the log", slog.Int64("count", dropped))
	}
}

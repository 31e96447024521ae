// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// bridgeLogs sends what the libraries log to the same place, in the same form.
func bridgeLogs(log *slog.Logger) {
	logger := logr.FromSlogHandler(libraries(log))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
}

// libraries is where the libraries log. What they call information is of use only to whoever looks for a fault.
func libraries(log *slog.Logger) slog.Handler {
	handler := log.Handler()
	if handler.Enabled(context.Background(), slog.LevelDebug) {
		return handler
	}
	return filter{handler, func(level slog.Level) bool { return level >= slog.LevelWarn }}
}

// untilDone is where libraries log until ctx ends. A manager that is told to end calls that an error.
func untilDone(ctx context.Context, log *slog.Logger) slog.Handler {
	return filter{libraries(log), func(slog.Level) bool { return ctx.Err() == nil }}
}

// filter is a handler that drops some lines.
type filter struct {
	slog.Handler
	keep func(slog.Level) bool
}

func (f filter) Enabled(ctx context.Context, level slog.Level) bool {
	return f.keep(level) && f.Handler.Enabled(ctx, level)
}

// Handle asks again: logr hands on errors without asking.
func (f filter) Handle(ctx context.Context, record slog.Record) error {
	if !f.keep(record.Level) {
		return nil
	}
	return f.Handler.Handle(ctx, record)
}

func (f filter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return filter{f.Handler.WithAttrs(attrs), f.keep}
}

func (f filter) WithGroup(name string) slog.Handler {
	return filter{f.Handler.WithGroup(name), f.keep}
}

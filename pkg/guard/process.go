// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/apigw-guardian/apigw-guardian/pkg/server"
)

const (
	// usualMemory is the chart's memory limit. The guard's budgets are made for it.
	usualMemory = 128 << 20
	// goShare is the part of the container's memory that Go may fill before it collects garbage in earnest. The rest is for the
	// program's file (some 25 MB), for the kernel's buffers of connections, and for what Go overshoots by.
	goShare = 0.5
)

// LimitMemory sets Go's memory limit to a share of the container's, which the chart names in GOMEMLIMIT. Without that, it takes a
// share of usualMemory, as the container may have a limit that the process cannot see. A process calls it once.
func LimitMemory() {
	container := debug.SetMemoryLimit(-1)
	if container == math.MaxInt64 {
		container = usualMemory
	}
	debug.SetMemoryLimit(int64(goShare * float64(container)))
}

// BridgeLogs sends the log lines of controller-runtime and client-go to log, in the same form. It sets the loggers of the process.
func BridgeLogs(log *slog.Logger) {
	logger := logr.FromSlogHandler(libraries(log))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
}

// libraries returns the handler for the libraries. Below warnings, their lines help only in a search for a fault.
func libraries(log *slog.Logger) slog.Handler {
	handler := log.Handler()
	if handler.Enabled(context.Background(), slog.LevelDebug) {
		return handler
	}
	return filter{handler, func(level slog.Level) bool { return level >= slog.LevelWarn }}
}

// untilDone drops all lines after the end of ctx: a manager that is stopped logs that as an error.
func untilDone(ctx context.Context, log *slog.Logger) slog.Handler {
	return filter{libraries(log), func(slog.Level) bool { return ctx.Err() == nil }}
}

// filter is a handler that drops some lines.
type filter struct {
	slog.Handler
	keep func(slog.Level) bool
}

// Enabled is false for a level that is dropped.
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

// WithAttrs keeps the filter.
func (f filter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return filter{f.Handler.WithAttrs(attrs), f.keep}
}

// WithGroup keeps the filter.
func (f filter) WithGroup(name string) slog.Handler {
	return filter{f.Handler.WithGroup(name), f.keep}
}

// maxScrapes is how many scrapes are answered at a time: each gathers all metrics in memory.
const maxScrapes = 4

func (g *Guard) newProbes(ctx context.Context) (func(context.Context) error, error) {
	probes := http.NewServeMux()
	alive := map[string]healthz.Checker{"alive": healthz.Ping}
	all := map[string]map[string]healthz.Checker{"/healthz": alive, "/readyz": alive}
	if !g.options.Controller {
		all["/readyz"] = map[string]healthz.Checker{"serving": g.server.Ready, "certificate": g.certificates.ready}
		// For monitoring alone: as readiness, it would empty the Service, and refuse the writes that still arrive.
		all["/protectedz"] = map[string]healthz.Checker{
			"reachable": g.reach.check, "registration": func(*http.Request) error { return g.repairer.InPlace() },
		}
	}
	for path, checks := range all {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		probes.Handle(path, handler)
		probes.Handle(path+"/", handler)
	}
	return g.newPlain(ctx, g.options.ProbeListen, probes)
}

func (g *Guard) newMetrics(ctx context.Context) (func(context.Context) error, error) {
	scrapes := http.NewServeMux()
	scrapes.Handle("/metrics", promhttp.HandlerFor(g.options.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes,
	}))
	return g.newPlain(ctx, g.options.MetricsListen, scrapes)
}

// newPlain binds the address, and returns what serves there until its context ends. It binds nothing for "" and "0".
func (g *Guard) newPlain(ctx context.Context, address string, handler http.Handler) (func(context.Context) error, error) {
	if address == "0" || address == "" {
		return endless(func(ctx context.Context) { <-ctx.Done() }), nil
	}
	plain, err := server.NewPlain(ctx, address, handler, g.options.Log)
	if err != nil {
		return nil, err
	}
	return plain.Serve, nil
}

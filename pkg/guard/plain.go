// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/apigw-guardian/apigw-guardian/pkg/server"
)

// maxScrapes is how many scrapes are answered at a time: each gathers all metrics in memory.
const maxScrapes = 4

func (g *Guard) newProbes(ctx context.Context) (func(context.Context) error, error) {
	probes := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"alive": healthz.Ping},
		"/readyz":  {"serving": g.server.Ready, "certificate": g.certificates.ready},
	} {
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apigw-guardian/apigw-guardian/pkg/server"
)

// maxScrapes is how many scrapes are answered at a time: each gathers all metrics in memory.
const maxScrapes = 4

// addPlain serves probes and metrics. controller-runtime's own servers bound neither connections nor, below 1 MiB, the head of
// a request, and anybody may be able to reach them.
func (g *guard) addPlain() error {
	probes := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"alive": healthz.Ping},
		"/readyz":  {"serving": g.server.ReadyChecker(), "certificate": g.certificates.ready},
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		probes.Handle(path, handler)
		probes.Handle(path+"/", handler)
	}
	scrapes := http.NewServeMux()
	scrapes.Handle("/metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes,
	}))
	if err := g.addPlainAt(g.settings.flags.probeListen, "health probe", probes); err != nil {
		return err
	}
	return g.addPlainAt(g.settings.flags.metricsListen, "metrics", scrapes)
}

// addPlainAt serves nothing at the address 0.
func (g *guard) addPlainAt(address, name string, handler http.Handler) error {
	if address == "0" || address == "" {
		return nil
	}
	plain, err := server.NewPlain(context.Background(), address, handler, g.settings.log)
	if err != nil {
		return err
	}
	return g.manager.Add(&ctrlmanager.Server{
		Name: name, Server: plain.Server, Listener: plain.Listener, ShutdownTimeout: new(server.DefaultShutdownTimeout),
	})
}

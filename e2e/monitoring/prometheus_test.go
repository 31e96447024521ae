// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

func TestMain(m *testing.M) { harness.Main(m, 1, harness.Unguarded) }

// watcher is a Prometheus that scrapes one guard as a ServiceMonitor makes it do.
type watcher struct {
	t       *testing.T
	storage *teststorage.TestStorage
	engine  *promql.Engine
}

func watch(t *testing.T, metrics string) *watcher {
	t.Helper()
	address, err := url.Parse(metrics)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, storage: teststorage.New(t), engine: promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1 << 20, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{}),
	})}
	manager, err := scrape.NewManager(&scrape.Options{DiscoveryReloadInterval: model.Duration(100 * time.Millisecond)}, nil, nil,
		w.storage, nil, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load("{global: {scrape_interval: 1s, scrape_timeout: 1s}, scrape_configs: [{job_name: guard}]}", promslog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.ApplyConfig(settings); err != nil {
		t.Fatal(err)
	}
	targets := make(chan map[string][]*targetgroup.Group, 1)
	targets <- map[string][]*targetgroup.Group{"guard": {{
		Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address.Host)}},
		Labels:  model.LabelSet{"namespace": namespace, "pod": "a"},
	}}}
	go func() { _ = manager.Run(targets) }()
	t.Cleanup(manager.Stop)
	return w
}

// ask returns the series that an expression has now.
func (w *watcher) ask(expression string) (string, error) {
	query, err := w.engine.NewInstantQuery(w.t.Context(), w.storage, nil, expression, time.Now())
	if err != nil {
		return "", err
	}
	defer query.Close()
	result := query.Exec(w.t.Context())
	if result.Err != nil {
		return "", result.Err
	}
	return result.Value.String(), nil
}

// A Prometheus that scrapes a healthy guard raises no alert, and each query of the dashboard has a result.
func TestPrometheusSeesAHealthyGuard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t, "--drift=report", "--proof-interval=1s", "--otlp-endpoint=http://127.0.0.1:1")
	if answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role)); err != nil || answer.Code != http.StatusForbidden {
		t.Fatalf("got %d %s (%v), want a denial", answer.Code, answer.Body, err)
	}
	prom := watch(t, guard.MetricsURL())
	alerting := map[string]string{}
	for _, r := range alerts(t).each() {
		alerting[r.Expr] = r.Alert
	}
	harness.Eventually(t, "the leader has proved that the guard denies", func() (bool, any) {
		got, err := prom.ask(fmt.Sprintf("count(apigw_guardian_protected{namespace=%q} == 1)", namespace))
		return err == nil && strings.HasPrefix(got, "{} => 4"), got
	})
	for _, expression := range expressions(t) {
		alert, isAlert := alerting[expression]
		if alert == "ApigwGuardianPushFailing" { // its receiver is away
			continue
		}
		var got string
		harness.Eventually(t, expression, func() (bool, any) {
			var err error
			got, err = prom.ask(expression)
			return err == nil && isAlert == (got == ""), fmt.Sprintf("%s%v", got, err)
		})
	}
}

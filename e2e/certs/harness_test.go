// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs tests from outside that certificates are rotated, expire and are repaired, and that no request is refused that the
// guard can answer. Its tests mostly wait, so they run in parallel, each on a control plane that no other test uses meanwhile.
package certs

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// With E2E_FULL=1, one test runs at a time: the load of one leaves no CPU time for another.
func TestMain(m *testing.M) {
	harness.Main(m, harness.Full(1, 3), func(ctx context.Context, bed *harness.Bed) error { return bed.Cluster.StartUnguarded(ctx) })
}

// newWorld takes a bed for the test, and makes a world of it.
func newWorld(t *testing.T) *scenario.World {
	t.Helper()
	harness.Take(t)
	return harness.World(t)
}

// readyz returns "" if the guard is ready, or else its answer.
func readyz(guard *testbed.Guard) string {
	code, body := harness.Get(guard.ProbesURL() + "/readyz?verbose")
	if code == http.StatusOK {
		return ""
	}
	return body
}

// denied tries a dry-run of a reserved write. It reports whether the guard denied it, and the answer.
func denied(ctx context.Context, world *scenario.World) (bool, string) {
	answer, err := world.Guarded.Do(ctx, scenario.Delete(world.Role).DryRun())
	if err != nil {
		return false, err.Error()
	}
	ours := answer.Code == http.StatusForbidden && strings.Contains(string(answer.Body), "is reserved by API Gateway")
	return ours, fmt.Sprintf("%d %.400s", answer.Code, answer.Body)
}

func awaitDenial(t *testing.T, world *scenario.World) {
	t.Helper()
	harness.Eventually(t, "the guard denies", func() (bool, any) {
		ok, answer := denied(t.Context(), world)
		return ok, answer
	})
}

// samples returns the samples of one metric.
func samples(t *testing.T, text io.Reader, name string) []*model.Sample {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		t.Fatal(err)
	}
	family, found := families[name]
	if !found {
		return nil
	}
	vector, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{Timestamp: model.Now()}, family)
	if err != nil {
		t.Fatal(err)
	}
	return vector
}

// failedCalls returns how many calls of webhooks failed, as the API server counts them.
func failedCalls(t *testing.T) float64 {
	t.Helper()
	body, err := harness.Clients(t).AdmissionregistrationV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failed := 0.0
	for _, s := range samples(t, strings.NewReader(string(body)), "apiserver_admission_webhook_rejection_count") {
		if s.Metric["error_type"] != "no_error" {
			failed += float64(s.Value)
		}
	}
	for _, s := range samples(t, strings.NewReader(string(body)), "apiserver_admission_webhook_fail_open_count") {
		failed += float64(s.Value)
	}
	return failed
}

// metric returns one metric of the guard, by its label "certificate", and whether it exists.
func metric(t *testing.T, guard *testbed.Guard, name, label string) (float64, bool) {
	t.Helper()
	response, err := http.Get(guard.MetricsURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	for _, s := range samples(t, response.Body, name) {
		if string(s.Metric["certificate"]) == label {
			return float64(s.Value), true
		}
	}
	return 0, false
}

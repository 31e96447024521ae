// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs tests from outside that certificates change, end and come back without a refused request that could have been
// answered. It has a control plane of its own, as its tests take minutes, mostly of waiting.
package certs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// shared is what all tests of this package use one after the other. A test leaves it as it found it.
var shared struct {
	cluster *testbed.Cluster
	program string
}

func TestMain(m *testing.M) {
	os.Exit(program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program, shared.cluster = guardian, cluster
		return cluster.StartUnguarded(ctx)
	}))
}

func newWorld(t *testing.T) *scenario.World {
	t.Helper()
	world, err := scenario.NewWorld(t.Context(), shared.cluster)
	if err != nil {
		t.Fatal(err)
	}
	return world
}

func clients(t *testing.T) kubernetes.Interface {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(shared.cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clientset
}

// launch starts a guard that ends with the test, and takes its registration with it.
func launch(t *testing.T, flags ...string) *testbed.Guard {
	t.Helper()
	guard, err := shared.cluster.LaunchGuard(shared.program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		guard.Stop()
		removeRegistration(t)
		if t.Failed() {
			log, err := guard.Log()
			t.Logf("log of the guard: %v\n%s", err, log[max(0, len(log)-8<<10):])
		}
	})
	return guard
}

func removeRegistration(t *testing.T) {
	t.Helper()
	err := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// eventually waits for what must come about, for as long as a slow machine may take.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// readyz is the guard's own word on whether it can serve; "" for ready.
func readyz(guard *testbed.Guard) string {
	response, err := http.Get(guard.ProbesURL() + "/readyz?verbose")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	if response.StatusCode == http.StatusOK {
		return ""
	}
	return string(body)
}

func awaitReady(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	eventually(t, "the guard is ready", func() bool { return readyz(guard) == "" })
}

// denied says that the guard itself denied a write to a reserved resource, tried as a dry-run; else what came instead.
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
	eventually(t, "the guard denies", func() bool {
		ours, _ := denied(t.Context(), world)
		return ours
	})
}

// samples are the metrics of one name, by their labels.
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

// failedCalls is the API server's own count of calls of the guard's webhooks that had no answer it could use.
func failedCalls(t *testing.T) float64 {
	t.Helper()
	body, err := clients(t).AdmissionregistrationV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
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

// metric is the value of one of the guard's metrics with the label; NaN-free: it fails where there is none.
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

// run runs the program to its end.
func run(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	command := shared.cluster.Command(t.Context(), shared.program, args...)
	combined, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(combined)
}

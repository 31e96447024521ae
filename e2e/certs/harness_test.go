// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs tests from outside that certificates are rotated, expire and are repaired, and that no request is refused that the
// guard can answer. Its tests mostly wait, so they run in parallel, each on a control plane that no other test uses meanwhile.
package certs

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// shared is what the tests share.
var shared struct {
	program string
	// clusters are the control planes that no test uses now.
	clusters chan *testbed.Cluster
	// turn is closed once every test that asked before has a control plane.
	turn chan struct{}
}

// full returns the value for `make e2e`, or a smaller one for `make test`.
func full[V any](value, smaller V) V {
	if os.Getenv("E2E_FULL") != "" {
		return value
	}
	return smaller
}

// controlPlanes is how many tests run at once. With E2E_FULL=1, the load of one test leaves no CPU time for another.
func controlPlanes() int { return full(1, 3) }

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "100"); err != nil { // tests wait for a control plane instead
		panic(err) // package testing has this flag
	}
	shared.clusters = make(chan *testbed.Cluster, controlPlanes())
	shared.turn = make(chan struct{})
	close(shared.turn)
	var more clusters
	more.start(controlPlanes() - 1)
	code := program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program = guardian
		shared.clusters <- cluster
		return errors.Join(cluster.StartUnguarded(ctx), more.await())
	})
	if err := more.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// clusters are the control planes that program.Tests does not start.
type clusters struct {
	group   sync.WaitGroup
	mu      sync.Mutex // guards the fields below
	started []*testbed.Cluster
	errs    []error
}

// start starts control planes in the background, and shares them.
func (c *clusters) start(count int) {
	for range count {
		c.group.Go(func() {
			cluster, err := testbed.Start(context.Background(), program.Config())
			if err == nil {
				err = cluster.StartUnguarded(context.Background())
				shared.clusters <- cluster
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.started, c.errs = append(c.started, cluster), append(c.errs, err)
		})
	}
}

func (c *clusters) await() error {
	c.group.Wait()
	return errors.Join(c.errs...)
}

func (c *clusters) stop() error {
	c.group.Wait()
	errs := make([]error, len(c.started))
	for i, cluster := range c.started {
		if cluster != nil {
			c.group.Go(func() { errs[i] = cluster.Stop() })
		}
	}
	c.group.Wait()
	return errors.Join(errs...)
}

// newWorld waits for a control plane, which the test uses alone until its end, and makes a world of it. Tests get one in the order of
// their source, so long tests come first: until t.Parallel, package testing runs one test after the other.
func newWorld(t *testing.T) *scenario.World {
	t.Helper()
	mine, hasCluster := shared.turn, make(chan struct{})
	shared.turn = hasCluster
	t.Parallel()
	<-mine
	cluster := <-shared.clusters
	close(hasCluster)
	t.Cleanup(func() { shared.clusters <- cluster })
	world, err := scenario.NewWorld(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return world
}

func clients(t *testing.T, world *scenario.World) kubernetes.Interface {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(world.Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clientset
}

// launch starts a guard. At the end of the test it stops the guard and deletes the webhook configuration.
func launch(t *testing.T, world *scenario.World, flags ...string) *testbed.Guard {
	t.Helper()
	guard, err := world.Cluster.LaunchGuard(shared.program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		guard.Stop()
		removeWebhookConfiguration(t, world)
		if t.Failed() {
			log, err := guard.Log()
			t.Logf("log of the guard: %v\n%s", err, log[max(0, len(log)-8<<10):])
		}
	})
	return guard
}

func removeWebhookConfiguration(t *testing.T, world *scenario.World) {
	t.Helper()
	err := clients(t, world).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// eventually waits for a condition, for as long as a slow machine may take.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 2 minutes in vain until %s", what)
		}
	}
}

// readyz returns "" if the guard is ready, or else its answer.
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
	eventually(t, "the guard denies", func() bool {
		ours, _ := denied(t.Context(), world)
		return ours
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
func failedCalls(t *testing.T, world *scenario.World) float64 {
	t.Helper()
	body, err := clients(t, world).AdmissionregistrationV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
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

// run runs the guard's program to its end.
func run(t *testing.T, world *scenario.World, args ...string) (code int, output string) {
	t.Helper()
	command := world.Cluster.Command(t.Context(), shared.program, args...)
	combined, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(combined)
}

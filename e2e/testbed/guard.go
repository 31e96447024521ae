// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// Guard is a running apigw-guardian webhook in the cluster's [Place].
type Guard struct {
	*process
	url, probes, metrics string
	client               *http.Client
	// observes is true for a guard that never fails closed.
	observes bool
	// before is the number of reviews that the guard had answered when StartGuard returned.
	before int
}

// guardEnd is the time from SIGTERM after which a guard is killed.
const guardEnd = 30 * time.Second

// StartGuard runs `webhook` of the program with the flags as the admin, on free ports. It returns once the guard is ready and the
// API server calls it. The guard ends with this program at the latest. The caller must call Stop.
func (c *Cluster) StartGuard(ctx context.Context, program string, flags ...string) (*Guard, error) {
	var guard *Guard
	err := withFreshPorts(3, func(ports []int) error {
		var err error
		guard, err = c.launchGuard(program, ports, flags)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("it took more than %v", readyTimeout))
		defer cancel()
		if err := guard.awaitReady(ctx, func(ctx context.Context) error { return c.guardReady(ctx, guard) }); err != nil {
			guard.Stop()
			return err
		}
		return nil
	})
	return guard, err
}

// LaunchGuard starts a guard like StartGuard, without waiting for it. The caller must call Stop.
func (c *Cluster) LaunchGuard(program string, flags ...string) (*Guard, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	return c.launchGuard(program, ports, flags)
}

func (c *Cluster) launchGuard(program string, ports []int, flags []string) (*Guard, error) {
	guard := &Guard{
		url:      "https://" + c.hostPort(ports[0]),
		probes:   "http://" + c.hostPort(ports[1]),
		metrics:  "http://" + c.hostPort(ports[2]),
		client:   c.plainClient(),
		observes: strings.Contains(strings.Join(flags, "="), "--mode=observe"),
	}
	log, err := os.CreateTemp(filepath.Join(c.dir, "logs"), "guard-*.log")
	if err != nil {
		return nil, fmt.Errorf("open the guard's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	command := c.command(program, slices.Concat([]string{
		"webhook", "--kubeconfig=" + c.Kubeconfig(), "--url=" + guard.url, "--listen=" + c.hostPort(ports[0]),
		"--probe-listen=" + c.hostPort(ports[1]), "--metrics-listen=" + c.hostPort(ports[2]), "--drain-period=0s",
		"--drift=off", "--proof-interval=0s", // most tests count requests and records, and change resources behind the guard's back
	}, flags)...)
	command.Dir, command.Env = c.dir, c.environment()
	command.Stdout, command.Stderr = log, log
	if guard.process, err = startProcess("apigw-guardian", command); err != nil {
		return nil, err
	}
	guard.logPath = log.Name()
	return guard, nil
}

// guardReady returns nil once the guard serves, and the API server sends reviews to this guard.
func (c *Cluster) guardReady(ctx context.Context, guard *Guard) error {
	if err := probeOK(ctx, guard.client, guard.probes+"/readyz"); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	configurations := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	registration, err := configurations.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, webhook := range registration.Webhooks {
		if url := webhook.ClientConfig.URL; url == nil || !strings.HasPrefix(*url, guard.url) {
			return fmt.Errorf("the webhook configuration does not name %s yet", guard.url)
		}
	}
	if fails := registration.Webhooks[0].FailurePolicy; *fails != admissionregistrationv1.Fail && !guard.observes {
		return fmt.Errorf("the webhook configuration does not fail closed yet")
	}
	return asked(ctx, clients, guard)
}

// asked returns nil once the API server sends the guard a review. The API server watches webhook configurations, so a stored one
// may not be in effect yet. The dry-run leaves no object and no record.
func asked(ctx context.Context, clients kubernetes.Interface, guard *Guard) error {
	before, err := guard.Requests(ctx)
	if err != nil {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "apigw-ingress-token-testbed"}}
	_, err = clients.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, secret, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	after, errAfter := guard.Requests(ctx)
	if errAfter != nil {
		return errAfter
	}
	if after > before {
		guard.before = after
		return nil
	}
	return fmt.Errorf("the API server does not call the guard yet: the answer to a reserved write is %v", err)
}

// Stop ends the guard by SIGTERM and waits for its end. It kills the guard after 30 s.
func (g *Guard) Stop() { g.stop(guardEnd) }

// Kill ends the guard by SIGKILL and waits for its end.
func (g *Guard) Kill() {
	_ = g.command.Process.Kill() // it may have ended already
	<-g.done
}

// Signal sends a signal, such as SIGSTOP to suspend the guard and SIGCONT to resume it.
func (g *Guard) Signal(signal syscall.Signal) error { return g.command.Process.Signal(signal) }

// PID returns the process ID of the guard.
func (g *Guard) PID() int { return g.command.Process.Pid }

// Ended returns a channel that is closed when the guard has ended.
func (g *Guard) Ended() <-chan struct{} { return g.done }

// URL returns the URL by which the API server reaches the guard, without a path.
func (g *Guard) URL() string { return g.url }

// ProbesURL returns the URL of /healthz and /readyz, without a path.
func (g *Guard) ProbesURL() string { return g.probes }

// MetricsURL returns the URL of /metrics, without a path.
func (g *Guard) MetricsURL() string { return g.metrics }

// Log returns the log of the guard.
func (g *Guard) Log() ([]byte, error) { return os.ReadFile(g.logPath) }

// Requests returns the number of reviews that the guard has answered since StartGuard returned, according to its metrics.
func (g *Guard) Requests(ctx context.Context) (int, error) {
	body, err := probe(ctx, g.client, g.metrics+"/metrics")
	if err != nil {
		return 0, fmt.Errorf("read the guard's metrics: %w", err)
	}
	total := 0
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "apigw_guardian_requests_total{") {
			continue
		}
		fields := strings.Fields(line)
		count, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return 0, fmt.Errorf("read the guard's metrics: %q: %w", line, err)
		}
		total += count
	}
	return total - g.before, nil
}

// Metric returns one value of the guard's metrics, by its name and labels in the text format; 0 if it is absent.
func (g *Guard) Metric(ctx context.Context, name string) (float64, error) {
	body, err := probe(ctx, g.client, g.metrics+"/metrics")
	if err != nil {
		return 0, fmt.Errorf("read the guard's metrics: %w", err)
	}
	for line := range strings.Lines(body) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil
}

// Resident returns the resident memory of the guard in bytes, on Linux only.
func (g *Guard) Resident() (int, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(g.PID()), "status"))
	if err != nil {
		return 0, fmt.Errorf("read the guard's memory: %w", err)
	}
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	if !found {
		return 0, fmt.Errorf("read the guard's memory: no VmRSS in its status")
	}
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		return 0, fmt.Errorf("read the guard's memory: %w", err)
	}
	return kilobytes << 10, nil
}

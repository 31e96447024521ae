// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// A guard whose port the API server cannot reach refuses nothing, and says why. Once a review arrives, its webhooks fail closed, and
// stay so over a restart of the guard and while the port is closed again.
func TestAGuardFailsClosedOnlyAfterAReviewHasArrived(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	address := closedPort(t)
	guard := harness.LaunchGuard(t, "--url=https://"+address)
	harness.AwaitReady(t, guard)
	harness.Eventually(t, "the guard says that nothing can reach it", func() (bool, any) {
		live := registered(t)
		return live != nil && strings.Contains(live.Annotations[guardian.ReachabilityProblemAnnotation], "connection refused"), live
	})
	for _, write := range []scenario.Write{scenario.Delete(world.Account), scenario.Delete(world.Role), scenario.Delete(world.Token)} {
		answer, err := world.Guarded.Do(t.Context(), write.DryRun())
		if err != nil || answer.Code != http.StatusOK {
			t.Errorf("a write is refused although the guard never ran: %d %s, %v", answer.Code, answer.Body, err)
		}
	}
	_, port, err := net.SplitHostPort(address)
	must(t)(nil, err)
	harness.Run(t, "preflight", "--private-network=skip").Require(t, 3, "webhook-reachable", "Fail", "TCP port "+port+" from the control plane")
	harness.Run(t, "verify").Require(t, 3, "webhook-reachable", "connection refused", "webhook.port")
	harness.Run(t, "status").Require(t, 3, "Not protected", "the guard reports: the API server cannot reach the guard", "hostNetwork")
	requireEvent(t, "WebhookUnreachable")

	listener := forward(t, address, strings.TrimPrefix(guard.URL(), "https://"))
	harness.Eventually(t, "the webhooks fail closed", failsClosed(t))
	harness.Run(t, "status").Require(t, 0, "Protected")
	guard.Stop()
	must(t)(nil, listener.Close())
	again := harness.LaunchGuard(t, "--url=https://"+address)
	harness.AwaitReady(t, again)
	patchRegistration(t, `{"metadata":{"labels":{"app.kubernetes.io/name":"x"}}}`)
	harness.Eventually(t, "the restarted guard repairs", func() (bool, any) {
		live := registered(t)
		return live.Labels["app.kubernetes.io/name"] == guardian.Name, live
	})
	if ok, got := failsClosed(t)(); !ok {
		t.Errorf("the webhooks ignore failures again: %v", got)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// forward passes each connection on, byte by byte, until the listener is closed or the test ends.
func forward(t *testing.T, from, to string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = client.Close() }()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer func() { _ = server.Close() }()
				go func() { _, _ = io.Copy(server, client) }()
				_, _ = io.Copy(client, server) // one of the two has left
			}()
		}
	}()
	return listener
}

func registered(t *testing.T) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	live, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return live
}

func failsClosed(t *testing.T) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		live := registered(t)
		if live == nil {
			return false, "there is no webhook configuration"
		}
		for _, webhook := range live.Webhooks {
			isSideDoor := strings.HasPrefix(webhook.Name, "side-door-") // it never fails closed while the guard observes it
			if *webhook.FailurePolicy != admissionregistrationv1.Fail && !isSideDoor {
				return false, webhook.Name
			}
		}
		return true, nil
	}
}

func requireEvent(t *testing.T, reason string) {
	t.Helper()
	harness.Eventually(t, "an Event says "+reason, func() (bool, any) {
		events, err := harness.Clients(t).EventsV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if event.Reason == reason {
				return true, nil
			}
		}
		return false, len(events.Items)
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// filesOf returns the flags for a certificate of the CA. The program does not know whether cert-manager or a person provides it.
func filesOf(t *testing.T, ca issuer) []string {
	t.Helper()
	dir := t.TempDir()
	mount(t, dir, ca.issue(t, time.Now().Add(-time.Minute), time.Hour))
	return []string{"--certs=files", "--cert-dir=" + dir}
}

// upgrades replaces one replica by the next as a Deployment with maxUnavailable 0 does.
type upgrades struct {
	front *balancer
	guard *testbed.Guard
}

func (u *upgrades) launch(t *testing.T, flags ...string) *testbed.Guard {
	t.Helper()
	return harness.LaunchGuard(t, append([]string{"--url=" + u.front.url(), "--leader-elect", "--drain-period=3s"}, flags...)...)
}

// to starts a replica with these flags, waits until it is ready, and ends the one before.
func (u *upgrades) to(t *testing.T, flags ...string) {
	t.Helper()
	next := u.launch(t, flags...)
	awaitReadyFor(t, next, 2*time.Minute)
	u.front.add(next)
	u.front.replace(next)
	u.guard.Stop()
	u.guard = next
}

func awaitReadyFor(t *testing.T, guard *testbed.Guard, limit time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(limit); readyz(guard) != ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready after %s: %s", limit, readyz(guard))
		}
	}
}

// A change of certs.mode, or of the provided CA, is one rolling upgrade without a refused call. Afterwards API servers trust only the
// new CA.
func TestTheSourceOfCertificatesChangesUnderLoad(t *testing.T) {
	world := newWorld(t)
	removeSecret(t)
	first, second := newIssuer(t), newIssuer(t)
	u := &upgrades{front: newBalancer(t)}
	u.guard = u.launch(t)
	u.front.add(u.guard)
	harness.AwaitReady(t, u.guard)
	awaitDenial(t, world)
	before, flow := failedCalls(t), startLoad(t, world)
	u.to(t, filesOf(t, first)...)
	if harness.Full(true, false) {
		u.to(t, filesOf(t, second)...)
	}
	u.to(t)
	time.Sleep(3 * time.Second) // under the last source alone
	flow.require(t, before)
	requireOneCA(t)
}

func requireOneCA(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "API servers trust only the last CA", func() (bool, any) {
		live := liveBundle(t)
		return bytes.Count(live, []byte("BEGIN CERTIFICATE")) == 1, string(live)
	})
}

func liveBundle(t *testing.T) []byte {
	t.Helper()
	configuration, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return registration.Bundle(configuration)
}

// The leader of an older version knows only its own CA and undoes every other bundle. A replica with another CA takes the leadership
// from it, and no call is refused.
func TestAnOlderLeaderGivesWayToAnotherSource(t *testing.T) {
	if !harness.Full(true, false) {
		t.Skip("it takes a minute: make e2e runs it")
	}
	world := newWorld(t)
	removeSecret(t)
	u := &upgrades{front: newBalancer(t)}
	u.guard = u.launch(t, filesOf(t, newIssuer(t))...)
	u.front.add(u.guard)
	harness.AwaitReady(t, u.guard)
	awaitDenial(t, world)
	leadLikeAnOlderVersion(t)
	before, flow := failedCalls(t), startLoad(t, world)
	u.to(t, filesOf(t, newIssuer(t))...)
	time.Sleep(3 * time.Second)
	flow.require(t, before)
}

// leadLikeAnOlderVersion takes the lease, and keeps the CA bundle as it is now for as long as it leads.
func leadLikeAnOlderVersion(t *testing.T) {
	t.Helper()
	client, bundle := harness.Clients(t), liveBundle(t)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	leases := client.CoordinationV1().Leases(namespace)
	if err := leases.Delete(ctx, guardian.WebhookConfiguration, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	led := make(chan struct{})
	go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: guardian.WebhookConfiguration}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: "older"},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 100 * time.Millisecond,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				close(led)
				undoBundles(ctx, client, bundle)
			},
			OnStoppedLeading: func() {},
		},
	})
	select {
	case <-led:
	case <-time.After(time.Minute):
		t.Fatal("the older leader does not lead")
	}
}

func undoBundles(ctx context.Context, client kubernetes.Interface, bundle []byte) {
	configurations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		live, err := configurations.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
		if err != nil || bytes.Equal(registration.Bundle(live), bundle) {
			continue
		}
		for i := range live.Webhooks {
			live.Webhooks[i].ClientConfig.CABundle = bundle
		}
		_, _ = configurations.Update(ctx, live, metav1.UpdateOptions{}) // the next round tries again
	}
}

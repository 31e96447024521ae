// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

const namespace = "apigw-guardian"

// denialsPerSecond is the load during a test.
func denialsPerSecond() int { return harness.Full(50, 20) }

// rotations is how many CAs replace each other.
func rotations() int { return harness.Full(3, 2) }

// lifetimes returns those of a leaf and a CA. With E2E_LONG=1, three rotations take seven minutes.
func lifetimes() (leaf, ca time.Duration) {
	if os.Getenv("E2E_LONG") != "" {
		return 30 * time.Second, 3 * time.Minute
	}
	return harness.Full(10*time.Second, 6*time.Second), harness.Full(time.Minute, 24*time.Second)
}

// lifetimeFlags returns the flags for lifetimes.
func lifetimeFlags() []string {
	leaf, ca := lifetimes()
	return []string{"--leaf-lifetime=" + leaf.String(), "--ca-lifetime=" + ca.String()}
}

// removeSecret deletes the CA of an earlier test.
func removeSecret(t *testing.T) {
	t.Helper()
	_ = harness.Clients(t).CoreV1().Secrets(namespace).Delete(t.Context(), certs.SecretName, metav1.DeleteOptions{}) // it may be absent
}

func secretData(t *testing.T) map[string][]byte {
	t.Helper()
	secret, err := harness.Clients(t).CoreV1().Secrets(namespace).Get(t.Context(), certs.SecretName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return secret.Data
}

// startTwo starts two guards behind a balancer, and waits until both are ready and a write is denied.
func startTwo(t *testing.T, world *scenario.World, flags ...string) []*testbed.Guard {
	t.Helper()
	front := newBalancer(t)
	var guards []*testbed.Guard
	for range 2 {
		guard := harness.LaunchGuard(t, append([]string{"--url=" + front.url(), "--leader-elect"}, flags...)...)
		front.add(guard)
		guards = append(guards, guard)
	}
	for _, guard := range guards {
		harness.AwaitReady(t, guard)
	}
	awaitDenial(t, world)
	return guards
}

// load tries forbidden writes until it is stopped, and keeps every answer that is no denial.
type load struct {
	began  time.Time
	asked  atomic.Int64
	mu     sync.Mutex
	others []string
	stop   func()
}

func startLoad(t *testing.T, world *scenario.World) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{began: time.Now()}
	var group sync.WaitGroup
	l.stop = func() { cancel(); group.Wait() }
	t.Cleanup(l.stop)
	group.Go(func() {
		ticker := time.NewTicker(time.Second / time.Duration(denialsPerSecond()))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				group.Go(func() { l.ask(context.WithoutCancel(ctx), world) })
			}
		}
	})
	return l
}

func (l *load) ask(ctx context.Context, world *scenario.World) {
	l.asked.Add(1)
	if ours, got := denied(ctx, world); !ours {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.others = append(l.others, time.Now().Format(time.TimeOnly)+" "+got)
	}
}

// require requires that the guard denied every write, as the clients and the API server counted, and that there were enough.
func (l *load) require(t *testing.T, failedBefore float64) {
	t.Helper()
	if asked, least := l.asked.Load(), int64(time.Since(l.began).Seconds()*float64(denialsPerSecond())/2); asked < least {
		t.Errorf("%d writes were tried, want at least %d", asked, least)
	}
	l.stop()
	if len(l.others) > 0 {
		t.Errorf("the guard did not deny %d of %d writes; the first answer: %s", len(l.others), l.asked.Load(), l.others[0])
	}
	if failed := failedCalls(t) - failedBefore; failed > 0 {
		t.Errorf("the API server counts %v failed calls", failed)
	}
	t.Logf("%d denials", l.asked.Load())
}

// prober connects to each guard ten times a second, and trusts what the webhook configuration holds at that moment.
type prober struct {
	handshakes, leaves int
	problems           []string
	stop               func()
}

func startProber(t *testing.T, guards []*testbed.Guard) *prober {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &prober{}
	seen := map[string]bool{}
	done := make(chan struct{})
	p.stop = func() { cancel(); <-done }
	t.Cleanup(p.stop)
	live := func() *x509.CertPool {
		pool := x509.NewCertPool()
		configuration, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Get(context.WithoutCancel(ctx), guardian.WebhookConfiguration, metav1.GetOptions{})
		if err == nil {
			pool.AppendCertsFromPEM(registration.Bundle(configuration))
		}
		return pool
	}
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			roots := live()
			for _, guard := range guards {
				leaf, err := handshake(guard, roots)
				if err != nil {
					p.problems = append(p.problems, err.Error())
					continue
				}
				seen[string(leaf.Raw)] = true
			}
			p.handshakes, p.leaves = p.handshakes+len(guards), len(seen)
		}
	}()
	return p
}

func handshake(guard *testbed.Guard, roots *x509.CertPool) (*x509.Certificate, error) {
	connection, err := tls.Dial("tcp", strings.TrimPrefix(guard.URL(), "https://"), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	return connection.ConnectionState().PeerCertificates[0], nil
}

// CAs rotate under load, and no call and no handshake fails.
func TestCAsRotateUnderLoad(t *testing.T) {
	world := newWorld(t)
	removeSecret(t)
	guards := startTwo(t, world, lifetimeFlags()...)
	before := failedCalls(t)
	flow, probe := startLoad(t, world), startProber(t, guards)
	leaf, ca := lifetimes()
	current := secretData(t)[corev1.TLSCertKey]
	for round := range rotations() {
		for deadline := time.Now().Add(2 * ca); bytes.Equal(secretData(t)[corev1.TLSCertKey], current); time.Sleep(time.Second) {
			if time.Now().After(deadline) {
				t.Fatalf("CA %d is still the current one after twice its lifetime", round)
			}
		}
		current = secretData(t)[corev1.TLSCertKey]
	}
	time.Sleep(leaf) // until each replica serves under the last CA
	flow.require(t, before)
	probe.stop()
	if len(probe.problems) > 0 {
		t.Errorf("%d of %d handshakes failed; the first: %s", len(probe.problems), probe.handshakes, probe.problems[0])
	}
	if least := 2 * rotations(); probe.leaves < least || probe.handshakes < 100 {
		t.Errorf("%d leaves in %d handshakes, want at least %d in 100", probe.leaves, probe.handshakes, least)
	}
	t.Logf("%d handshakes, %d leaves", probe.handshakes, probe.leaves)
}

func poolOf(pemBytes []byte) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pemBytes)
	return pool
}

func encoded(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

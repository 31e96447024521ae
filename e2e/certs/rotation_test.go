// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

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
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

const (
	namespace = "apigw-guardian"
	// rotations is how many authorities come and go.
	rotations = 3
	// denialsPerSecond are asked for meanwhile.
	denialsPerSecond = 50
)

// lifetimes are those of a leaf and an authority. E2E_LONG=1 takes longer ones, of which three rotations last seven
// minutes.
func lifetimes() (leaf, authority time.Duration) {
	if os.Getenv("E2E_LONG") != "" {
		return 30 * time.Second, 3 * time.Minute
	}
	return 10 * time.Second, time.Minute
}

// removeSecret lets a test begin without an authority.
func removeSecret(t *testing.T) {
	t.Helper()
	_ = clients(t).CoreV1().Secrets(namespace).Delete(t.Context(), certs.SecretName, metav1.DeleteOptions{}) // it may be absent
}

func secretData(t *testing.T) map[string][]byte {
	t.Helper()
	secret, err := clients(t).CoreV1().Secrets(namespace).Get(t.Context(), certs.SecretName, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return secret.Data
}

// startTwo starts two guards behind a balancer, of which one leads, and waits until the API server has denials of them.
func startTwo(t *testing.T, world *scenario.World, flags ...string) []*testbed.Guard {
	t.Helper()
	front := newBalancer(t)
	var guards []*testbed.Guard
	for range 2 {
		guard := launch(t, append([]string{"--url=" + front.url(), "--leader-elect"}, flags...)...)
		front.add(guard)
		guards = append(guards, guard)
	}
	for _, guard := range guards {
		awaitReady(t, guard)
	}
	awaitDenial(t, world)
	return guards
}

// load asks for denials until it is stopped, and knows what came instead of one.
type load struct {
	asked  atomic.Int64
	mu     sync.Mutex
	others []string
	stop   func()
}

func startLoad(t *testing.T, world *scenario.World) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{}
	var group sync.WaitGroup
	l.stop = func() { cancel(); group.Wait() }
	t.Cleanup(l.stop)
	group.Go(func() {
		ticker := time.NewTicker(time.Second / denialsPerSecond)
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

// require fails the test where anything but a denial came, by the caller's account or the API server's.
func (l *load) require(t *testing.T, failedBefore float64) {
	t.Helper()
	l.stop()
	if len(l.others) > 0 {
		t.Errorf("%d of %d calls were not denied by the guard; the first: %s", len(l.others), l.asked.Load(), l.others[0])
	}
	if failed := failedCalls(t) - failedBefore; failed > 0 {
		t.Errorf("the API server counts %v failed calls", failed)
	}
	t.Logf("%d denials", l.asked.Load())
}

// prober makes a new connection to each guard ten times a second, as an API server does that has just read the registration.
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
		configuration, err := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
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

// Authorities come and go under load, and no call and no connection notices.
func TestAuthoritiesRotateUnderLoad(t *testing.T) {
	removeSecret(t)
	world := newWorld(t)
	leaf, authority := lifetimes()
	guards := startTwo(t, world, "--leaf-lifetime="+leaf.String(), "--ca-lifetime="+authority.String())
	before := failedCalls(t)
	flow, probe := startLoad(t, world), startProber(t, guards)
	signer := secretData(t)[corev1.TLSCertKey]
	for round := range rotations {
		for deadline := time.Now().Add(2 * authority); bytes.Equal(secretData(t)[corev1.TLSCertKey], signer); time.Sleep(time.Second) {
			if time.Now().After(deadline) {
				t.Fatalf("authority %d is still the signer after twice its life", round)
			}
		}
		signer = secretData(t)[corev1.TLSCertKey]
	}
	time.Sleep(leaf) // and the last one is at work
	flow.require(t, before)
	probe.stop()
	if len(probe.problems) > 0 {
		t.Errorf("%d of %d handshakes failed; the first: %s", len(probe.problems), probe.handshakes, probe.problems[0])
	}
	if least := 2 * rotations; probe.leaves < least {
		t.Errorf("%d leaves were seen, want at least %d", probe.leaves, least)
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

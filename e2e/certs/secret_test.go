// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// unknownPair makes a CA of the attacker, as values of the Secret.
func unknownPair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	i := newIssuer(t)
	files := i.issue(t, time.Now().Add(-time.Minute), time.Hour)
	return files["ca.crt"], i.encodedKey(t)
}

// watcher reads the live webhook configuration until it is stopped, and keeps every bundle.
type watcher struct {
	bundles [][]byte
	stop    func()
}

func startWatcher(t *testing.T) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w := &watcher{stop: func() { cancel(); <-done }}
	t.Cleanup(w.stop)
	api := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			live, err := api.Get(context.WithoutCancel(ctx), guardian.WebhookConfiguration, metav1.GetOptions{})
			if err != nil {
				continue
			}
			if bundle := registration.Bundle(live); len(w.bundles) == 0 || !bytes.Equal(bundle, w.bundles[len(w.bundles)-1]) {
				w.bundles = append(w.bundles, bundle)
			}
		}
	}()
	return w
}

// require requires that no bundle held an unknown CA.
func (w *watcher) require(t *testing.T, unknown [][]byte) {
	t.Helper()
	w.stop()
	for _, bundle := range w.bundles {
		for _, certificate := range unknown {
			block, _ := pem.Decode(certificate)
			for rest := bundle; ; {
				var published *pem.Block
				if published, rest = pem.Decode(rest); published == nil {
					break
				}
				if bytes.Equal(published.Bytes, block.Bytes) {
					t.Fatal("the webhook configuration held an unknown CA")
				}
			}
		}
	}
	t.Logf("%d bundles were published", len(w.bundles))
}

// patchSecret writes keys of the Secret without reading it.
func patchSecret(t *testing.T, values map[string][]byte) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": values})
	if err != nil {
		t.Fatal(err)
	}
	_, err = harness.Clients(t).CoreV1().Secrets(namespace).Patch(t.Context(), certs.SecretName, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// replaceSecret deletes the Secret and creates another one.
func replaceSecret(t *testing.T, world *scenario.World, certificate, key []byte) {
	t.Helper()
	removeSecret(t)
	secret := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}}
	secret.Name = certs.SecretName
	_, err := harness.Clients(t).CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // the leader was faster
		t.Fatal(err)
	}
}

// All replicas start while the Secret holds an unknown CA.
func TestAnUnknownCAIsNotPublishedAfterAStart(t *testing.T) {
	world := newWorld(t)
	for name, write := range map[string]func(t *testing.T, world *scenario.World, certificate, key []byte){
		"patched": func(t *testing.T, world *scenario.World, certificate, key []byte) {
			t.Helper()
			patchSecret(t, map[string][]byte{
				"tls.crt": certificate, "tls.key": key, "next.crt": nil, "next.key": nil, "previous.crt": certificate,
			})
		},
		"replaced": replaceSecret,
		"unusable": func(t *testing.T, world *scenario.World, certificate, _ []byte) {
			t.Helper()
			patchSecret(t, map[string][]byte{"tls.crt": certificate, "tls.key": []byte("junk")})
		},
	} {
		t.Run("the Secret was "+name, func(t *testing.T) {
			removeSecret(t)
			guard := harness.LaunchGuard(t)
			harness.AwaitReady(t, guard)
			awaitDenial(t, world)
			guard.Kill()
			certificate, key := unknownPair(t)
			write(t, world, certificate, key)
			seen := startWatcher(t)
			again := harness.LaunchGuard(t)
			harness.AwaitReady(t, again)
			awaitDenial(t, world)
			seen.require(t, [][]byte{certificate})
			if bytes.Contains(secretData(t)[corev1.TLSCertKey], certificate) {
				t.Error("the Secret still holds the unknown CA")
			}
			if replaced, _ := metric(t, again, "apigw_guardian_ca_replaced_total", ""); replaced != 1 {
				t.Errorf("%v CAs were replaced, want 1", replaced)
			}
		})
	}
}

// An attacker may write the Secret while guards run. No unknown CA is published, no call fails, and the rotation goes on.
func TestAnUnknownCAIsNeverPublished(t *testing.T) {
	world := newWorld(t)
	removeSecret(t)
	guards := startTwo(t, world, lifetimeFlags()...)
	seen, before := startWatcher(t), failedCalls(t)
	flow := startLoad(t, world)
	first := secretData(t)[corev1.TLSCertKey]
	var unknown [][]byte
	for round := range harness.Full(60, 12) {
		certificate, key := unknownPair(t)
		unknown = append(unknown, certificate)
		switch round % 6 {
		case 0:
			patchSecret(t, map[string][]byte{"tls.crt": certificate, "tls.key": key})
		case 1:
			patchSecret(t, map[string][]byte{"next.crt": certificate, "next.key": key})
		case 2:
			patchSecret(t, map[string][]byte{"previous.crt": certificate})
		case 3:
			patchSecret(t, map[string][]byte{"tls.crt": certificate})
		case 4:
			patchSecret(t, map[string][]byte{
				"tls.crt": certificate, "tls.key": key, "next.crt": certificate, "next.key": key, "previous.crt": certificate,
			})
		case 5:
			replaceSecret(t, world, certificate, key)
		}
		// Each second the leader restores the Secret, or rotates. A short-lived CA leaves no time for more attacks.
		time.Sleep(harness.Full(1200*time.Millisecond, 2400*time.Millisecond))
	}
	flow.require(t, before)
	harness.Eventually(t, "another CA of the guard signs", func() (bool, any) {
		current := secretData(t)[corev1.TLSCertKey]
		return len(current) > 0 && !bytes.Equal(current, first), string(current)
	})
	seen.require(t, unknown)
	var tampered float64
	for _, guard := range guards {
		count, _ := metric(t, guard, "apigw_guardian_ca_secret_tampered_total", "")
		tampered += count
	}
	if tampered < float64(len(unknown)/2) {
		t.Errorf("the replicas count %v reads of an unknown CA, want at least one for every second of the %d attacks", tampered, len(unknown))
	}
}

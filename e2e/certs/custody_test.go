// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

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
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// foreignPair is an authority of the attacker's, as values of the Secret. Its lifetime is that of the guard's own.
func foreignPair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	i := newIssuer(t)
	files := i.issue(t, time.Now().Add(-time.Minute), time.Hour)
	return files["ca.crt"], i.encodedKey(t)
}

// watcher reads the live registration until it is stopped, and keeps what it has seen in the bundles.
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
	api := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
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

// require fails the test where a bundle held a foreign certificate.
func (w *watcher) require(t *testing.T, foreign [][]byte) {
	t.Helper()
	w.stop()
	for _, bundle := range w.bundles {
		for _, certificate := range foreign {
			block, _ := pem.Decode(certificate)
			for rest := bundle; ; {
				var published *pem.Block
				if published, rest = pem.Decode(rest); published == nil {
					break
				}
				if bytes.Equal(published.Bytes, block.Bytes) {
					t.Fatal("the registration held a foreign authority")
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
	_, err = clients(t).CoreV1().Secrets(namespace).Patch(t.Context(), certs.SecretName, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// replaceSecret deletes the Secret and creates another one.
func replaceSecret(t *testing.T, certificate, key []byte) {
	t.Helper()
	removeSecret(t)
	secret := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}}
	secret.Name = certs.SecretName
	_, err := clients(t).CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // the leader was quicker
		t.Fatal(err)
	}
}

// An attacker who may write the Secret gets no authority published, keeps no caller from the guard while it runs, and does not
// stop the rotation.
func TestAnUnknownCAIsNeverPublished(t *testing.T) {
	removeSecret(t)
	world := newWorld(t)
	guards := startTwo(t, world, "--leaf-lifetime=10s", "--ca-lifetime=1m")
	seen, before := startWatcher(t), failedCalls(t)
	flow := startLoad(t, world)
	first := secretData(t)[corev1.TLSCertKey]
	var foreign [][]byte
	for round := range 60 {
		certificate, key := foreignPair(t)
		foreign = append(foreign, certificate)
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
			patchSecret(t, map[string][]byte{"tls.crt": certificate, "tls.key": key, "next.crt": certificate, "next.key": key, "previous.crt": certificate})
		case 5:
			replaceSecret(t, certificate, key)
		}
		time.Sleep(1200 * time.Millisecond)
	}
	flow.require(t, before)
	seen.require(t, foreign)
	eventually(t, "another authority of the guard's signs", func() bool {
		signer := secretData(t)[corev1.TLSCertKey]
		return len(signer) > 0 && !bytes.Equal(signer, first)
	})
	var tampered float64
	for _, guard := range guards {
		count, _ := metric(t, guard, "apigw_guardian_ca_secret_tampered_total", "")
		tampered += count
	}
	if tampered == 0 {
		t.Error("no replica has counted a foreign Secret")
	}
}

// All replicas start while the Secret is foreign: the registration tells that no guard has made it.
func TestAnUnknownCAIsNotPublishedAfterAStart(t *testing.T) {
	for name, write := range map[string]func(t *testing.T, certificate, key []byte){
		"patched": func(t *testing.T, certificate, key []byte) {
			t.Helper()
			patchSecret(t, map[string][]byte{"tls.crt": certificate, "tls.key": key, "next.crt": nil, "next.key": nil, "previous.crt": certificate})
		},
		"replaced": replaceSecret,
		"spoilt": func(t *testing.T, certificate, _ []byte) {
			t.Helper()
			patchSecret(t, map[string][]byte{"tls.crt": certificate, "tls.key": []byte("junk")})
		},
	} {
		t.Run("the Secret was "+name, func(t *testing.T) {
			removeSecret(t)
			world := newWorld(t)
			guard := launch(t)
			awaitReady(t, guard)
			awaitDenial(t, world)
			guard.Kill()
			certificate, key := foreignPair(t)
			write(t, certificate, key)
			seen := startWatcher(t)
			again := launch(t)
			awaitReady(t, again)
			awaitDenial(t, world)
			seen.require(t, [][]byte{certificate})
			if bytes.Contains(secretData(t)[corev1.TLSCertKey], certificate) {
				t.Error("the Secret still holds the foreign authority")
			}
			if replaced, _ := metric(t, again, "apigw_guardian_ca_replaced_total", ""); replaced != 1 {
				t.Errorf("%v authorities were replaced, want 1", replaced)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// certificate is one as cert-manager's API server returns it.
func certificate(conditions ...any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
		"metadata": map[string]any{"namespace": "guard", "name": "serving", "labels": map[string]any{"app.kubernetes.io/name": "apigw-guardian"}},
		"status":   map[string]any{"conditions": conditions},
	}}
}

func condition(kind, status, reason, message string) any {
	return map[string]any{"type": kind, "status": status, "reason": reason, "message": message}
}

// bundle is PEM of authorities that end then.
func bundle(t *testing.T, ends ...time.Time) []byte {
	t.Helper()
	var text []byte
	for i, end := range ends {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), NotAfter: end, IsCA: true, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

func registered(caBundle []byte, problem string) *admissionregistrationv1.ValidatingWebhookConfiguration {
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: guardian.WebhookConfiguration, Annotations: map[string]string{guardian.CertificateProblemAnnotation: problem}},
		Webhooks:   []admissionregistrationv1.ValidatingWebhook{{ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: caBundle}}},
	}
}

func TestStatusTellsWhatIsWrongWithCertificates(t *testing.T) {
	past, future := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2126, 1, 2, 3, 4, 5, 0, time.UTC)
	cases := map[string]struct {
		live        *admissionregistrationv1.ValidatingWebhookConfiguration
		certificate *unstructured.Unstructured
		notAfter    *time.Time
		want        []string
	}{
		"no registration":             {want: []string{}},
		"an authority that is good":   {live: registered(bundle(t, past, future), ""), notAfter: &future, want: []string{}},
		"a bundle that is unreadable": {live: registered([]byte("junk"), ""), want: []string{}},
		"only authorities of the past": {
			live: registered(bundle(t, past), ""), notAfter: &past,
			want: []string{"Every certificate authority in the registration has expired, the last on 2026-01-02T03:04:05Z."},
		},
		"a guard that complains": {
			live: registered(bundle(t, future), "tls.crt ends soon"), notAfter: &future, want: []string{"The guard says: tls.crt ends soon."},
		},
		"a Certificate that is ready": {certificate: certificate(condition("Ready", "True", "Ready", "up to date")), want: []string{}},
		"a Certificate that nobody issues": {
			certificate: certificate(), want: []string{"Certificate guard/serving is not ready: cert-manager has not looked at it. Does cert-manager run?"},
		},
		"a Certificate that cannot be issued": {
			certificate: certificate(
				condition("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist."),
				condition("Issuing", "False", "Failed", "The issuer is unknown")),
			want: []string{"Certificate guard/serving is not ready: DoesNotExist: Issuing certificate as Secret does not exist. Failed: The issuer is unknown."},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var typed, dynamic []runtime.Object
			if tc.live != nil {
				typed = append(typed, tc.live)
			}
			if tc.certificate != nil {
				dynamic = append(dynamic, tc.certificate)
			}
			a, _, _ := newFake(t, typed, dynamic)
			if diff := cmp.Diff(Certificates{NotAfter: tc.notAfter, Problems: tc.want}, a.certificates(t.Context())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whoever is just being installed must not be kept from being authorized by a Certificate that is a moment old.
func TestPreflightLooksAtCertificatesOnlyWhereThereAreSome(t *testing.T) {
	cases := map[string]struct {
		certificates []runtime.Object
		want         Verdict
		applies      bool
	}{
		"without cert-manager":       {nil, Pass, false},
		"with one that is ready":     {[]runtime.Object{certificate(condition("Ready", "True", "Ready", ""))}, Pass, true},
		"with one that is not ready": {[]runtime.Object{certificate(condition("Ready", "False", "Pending", "wait"))}, Unknown, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, nil, tc.certificates)
			check, applies := a.checkCertificates(t.Context())
			if check.Status != tc.want || applies != tc.applies {
				t.Errorf("got %s (applies %v), want %s (%v)", check.Status, applies, tc.want, tc.applies)
			}
		})
	}
}

func TestTheAnnotationIsTheRegistrations(t *testing.T) {
	if guardian.CertificateProblemAnnotation != guardian.CertificateProblemAnnotation {
		t.Errorf("%q here and %q there", guardian.CertificateProblemAnnotation, guardian.CertificateProblemAnnotation)
	}
}

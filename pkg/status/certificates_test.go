// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
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

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

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
			want: []string{"every CA in the webhook configuration has expired, the last on 2026-01-02T03:04:05Z"},
		},
		"a guard that complains": {
			live: registered(bundle(t, future), "tls.crt ends soon"), notAfter: &future, want: []string{"the guard reports: tls.crt ends soon"},
		},
		"a Certificate that is ready": {certificate: shop.Certificate(shop.Condition("Ready", "True", "Ready", "up to date")), want: []string{}},
		"a Certificate that nobody issues": {
			certificate: shop.Certificate(), want: []string{"Certificate guard/serving is not ready: cert-manager has not looked at it: check that cert-manager runs"},
		},
		"a Certificate that cannot be issued": {
			certificate: shop.Certificate(
				shop.Condition("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist."),
				shop.Condition("Issuing", "False", "Failed", "The issuer is unknown")),
			want: []string{"Certificate guard/serving is not ready: DoesNotExist: Issuing certificate as Secret does not exist; Failed: The issuer is unknown"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var dynamic []runtime.Object
			if tc.certificate != nil {
				dynamic = append(dynamic, tc.certificate)
			}
			cluster, _ := fakeCluster(t, nil, dynamic)
			if diff := cmp.Diff(Certificates{NotAfter: tc.notAfter, Problems: tc.want}, certificates(t.Context(), cluster, tc.live)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

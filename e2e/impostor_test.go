// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// stolenCertificate makes a serving certificate with the key of the guard's CA, as a reader of its Secret can.
func stolenCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	secret, err := harness.Clients(t).CoreV1().Secrets("apigw-guardian").Get(t.Context(), certs.SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "impostor"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: key}
}

// startImpostor answers in the guard's place: it denies dry-runs, with what says returns for them, and allows the rest.
func startImpostor(t *testing.T, url string, says func(*admissionv1.AdmissionRequest) string) {
	t.Helper()
	listener, err := tls.Listen("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{Certificates: []tls.Certificate{stolenCertificate(t)}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		isProbe := review.Request.DryRun != nil && *review.Request.DryRun
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: !isProbe}
		if isProbe {
			review.Response.Result = &metav1.Status{Code: http.StatusForbidden, Reason: "Forbidden", Message: says(review.Request)}
		}
		review.Request = nil
		_ = json.NewEncoder(w).Encode(review)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

// A holder of the CA key can answer in the guard's place, but cannot make status report the resources as protected.
func TestAnImpostorDoesNotPassForTheGuard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t)
	harness.Run(t, "authorize").Require(t, 0)
	harness.Run(t, "status").Require(t, 0)
	harness.Run(t, "verify").Require(t, 0)
	if probes, err := guard.Metric(t.Context(), "apigw_guardian_probes_total"); err != nil || probes == 0 {
		t.Errorf("the guard counts %v probes (%v)", probes, err)
	}
	guard.Kill()
	impostor := probe.NewReplica(time.Now())
	says := func(request *admissionv1.AdmissionRequest) string {
		var object metav1.PartialObjectMetadata
		_ = json.Unmarshal(request.Object.Raw, &object) // a deletion has none
		return "it is reserved.\n" + impostor.Sign(probe.Subject{
			Nonce: object.Annotations[guardian.ProbeAnnotation], Operation: request.Operation,
			Resource: metav1GroupResource(request), Namespace: request.Namespace,
		})
	}
	startImpostor(t, guard.URL(), says)
	answer, err := world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":"b"}}}`))
	if err != nil || answer.Code != http.StatusOK {
		t.Fatalf("the impostor does not allow a write: %v", err)
	}
	must(t)(world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":null}}}`)))
	requireStatus(t, 3, true, false)
	harness.Run(t, "verify").Require(t, 3)
	harness.Run(t, "authorize", "--wait=1s", "--await-protection").Require(t, 1)
}

func metav1GroupResource(request *admissionv1.AdmissionRequest) string {
	return (&metav1.GroupResource{Group: request.Resource.Group, Resource: request.Resource.Resource}).String()
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// caller returns a caller's certificate, which is its own authority.
func caller(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trusted
}

func TestCallersMustPresentACertificateOfTheAuthoritiesOfNow(t *testing.T) {
	certificate, trusted := caller(t)
	var pool atomic.Pointer[x509.CertPool]
	pool.Store(trusted)
	h := start(t, limits{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusTeapot)
		}
	}), func(o *Options) { o.ClientCAs = pool.Load })
	ask := func(certificates ...tls.Certificate) reply {
		config := h.tlsConfig()
		if len(certificates) > 0 { // also one that the server does not ask for
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
		}
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		return h.post(&http.Client{Transport: transport, Timeout: giveUp}, "", "")
	}
	if got := ask(); got.err == nil {
		t.Errorf("a caller without a certificate got %d", got.status)
	}
	if got := ask(certificate); got.err != nil || got.status != http.StatusOK {
		t.Errorf("a caller with a certificate got %d, %v, want 200 and a verified chain", got.status, got.err)
	}
	resumed := h.tlsConfig()
	resumed.Certificates, resumed.ClientSessionCache = []tls.Certificate{certificate}, tls.NewLRUClientSessionCache(1)
	for range 2 { // a resumed session would keep the authorities of before
		transport := &http.Transport{TLSClientConfig: resumed, DisableKeepAlives: true}
		answer, err := (&http.Client{Transport: transport, Timeout: giveUp}).Get("https://" + h.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _ = answer.Body.Close(); answer.TLS.DidResume {
			t.Error("a session was resumed")
		}
	}
	pool.Store(x509.NewCertPool())
	if got := ask(certificate); got.err == nil {
		t.Errorf("a caller of an authority that is trusted no more got %d", got.status)
	}
}

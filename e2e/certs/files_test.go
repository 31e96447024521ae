// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

// issuer is a CA of an administrator.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "An administrator's CA"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{certificate: certificate, key: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes the three files of a certificate that is valid from that moment for that long.
func (i issuer) issue(t *testing.T, from time.Time, life time.Duration) map[string][]byte {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "guard"},
		NotBefore: from, NotAfter: from.Add(life),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, i.certificate, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}),
		"ca.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Raw}),
	}
}

// mount writes files as kubelet mounts a Secret: into a new directory, to which it then moves a symbolic link.
func mount(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	fresh := filepath.Join(dir, "..version-"+rand.Text())
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)) // it may be there
	}
	link := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(fresh), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// With an expired certificate, writes are refused, and status, readiness and metrics say so. A repair takes effect at once.
func TestAnExpiredCertificateFailsClosedUntilItsRepair(t *testing.T) {
	world := newWorld(t)
	dir, ca := t.TempDir(), newIssuer(t)
	life := harness.Full(45*time.Second, 15*time.Second)
	mount(t, dir, ca.issue(t, time.Now().Add(-10*time.Minute), 10*time.Minute+life))
	front := newBalancer(t)
	guard := harness.LaunchGuard(t, "--url="+front.url(), "--certs=files", "--cert-dir="+dir)
	front.add(guard)
	harness.AwaitReady(t, guard)
	awaitDenial(t, world)
	harness.Eventually(t, "status says that the certificate is about to expire", func() (bool, any) {
		output := harness.Run(t, "status").Output()
		return strings.Contains(output, "has not been renewed"), output
	})
	harness.Eventually(t, "the guard is not ready", func() (bool, any) {
		answer := readyz(guard)
		return strings.Contains(answer, "[-]certificate"), answer
	})
	front.cut() // a connection that is open stays good
	ours, got := denied(t.Context(), world)
	if ours || !strings.Contains(got, "certificate has expired") {
		t.Errorf("with an expired certificate, the answer to a write was: %s", got)
	}
	if ends, found := metric(t, guard, "apigw_guardian_certificate_not_after_seconds", "leaf"); !found || ends > float64(time.Now().Unix()) {
		t.Errorf("the metric says that the leaf expires at %v (found %v)", ends, found)
	}
	harness.Run(t, "status").Require(t, 3, "has expired")
	mount(t, dir, ca.issue(t, time.Now().Add(-time.Minute), time.Hour))
	repaired := time.Now()
	awaitDenial(t, world)
	if took := time.Since(repaired); took > 10*time.Second {
		t.Errorf("the guard denied again %s after the repair, want at most 10s", took.Round(time.Millisecond))
	}
	harness.AwaitReady(t, guard)
}

// API servers accept certificates of a machine whose clock is an hour late or early.
func TestAnHourOfClockSkewDoesNoHarm(t *testing.T) {
	world := newWorld(t)
	for name, skew := range map[string]time.Duration{"an hour late": -time.Hour, "an hour early": time.Hour} {
		t.Run("the clock of the CA is "+name, func(t *testing.T) {
			makeCA(t, skew)
			guard := harness.LaunchGuard(t)
			harness.AwaitReady(t, guard)
			awaitDenial(t, world)
		})
		t.Run("the clock of the leaf is "+name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, makeCA(t, skew))
			guard := harness.LaunchGuard(t, "--certs=files", "--cert-dir="+dir)
			harness.AwaitReady(t, guard)
			awaitDenial(t, world)
		})
	}
}

// The guard does not start with wrong files: it exits with code 1 and the reason.
func TestWrongFilesEndTheStart(t *testing.T) {
	ca := newIssuer(t)
	newWorld(t)
	good := ca.issue(t, time.Now().Add(-time.Minute), time.Hour)
	other := ca.issue(t, time.Now().Add(-time.Minute), time.Hour)
	cases := map[string]struct {
		files map[string][]byte
		host  string
		says  string
	}{
		"another key":    {map[string][]byte{"tls.crt": good["tls.crt"], "tls.key": other["tls.key"], "ca.crt": good["ca.crt"]}, "127.0.0.1", "tls.key is not the key of tls.crt"},
		"another host":   {good, "127.0.0.2", "tls.crt is not for 127.0.0.2 (it is for [127.0.0.1])"},
		"an expired one": {ca.issue(t, time.Now().Add(-time.Hour), time.Minute), "127.0.0.1", "tls.crt has expired on"},
		"without CA":     {map[string][]byte{"tls.crt": good["tls.crt"], "tls.key": good["tls.key"]}, "127.0.0.1", "ca.crt is missing"},
		"nothing":        {nil, "127.0.0.1", "tls.crt is missing"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, tc.files)
			harness.Run(t, "webhook", "--listen=127.0.0.1:0", "--probe-listen=0", "--metrics-listen=0",
				"--url=https://"+tc.host+":1", "--certs=files", "--cert-dir="+dir).Require(t, 1, "Error: ", tc.says)
		})
	}
}

// makeCA makes the built-in CA and a leaf on a machine whose clock is off, and returns them as files.
func makeCA(t *testing.T, skew time.Duration) map[string][]byte {
	t.Helper()
	removeSecret(t)
	authority, err := certs.LoadAuthority(t.Context(), harness.Clients(t).CoreV1(), certs.Options{
		Namespace: namespace, Hosts: []string{"127.0.0.1"}, Now: func() time.Time { return time.Now().Add(skew) },
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}),
		"ca.crt":  authority.Bundle(),
	}
}

func (i issuer) encodedKey(t *testing.T) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

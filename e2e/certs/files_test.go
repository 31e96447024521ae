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
)

// issuer is an authority of the administrator's.
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

// issue makes a certificate that is valid from and for so long, as the three files of a folder.
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

// mount writes files as kubelet mounts a Secret: into a new folder, to which one symbolic link is then moved.
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

// An expired certificate fails closed and is told everywhere, and its repair is taken up at once.
func TestAnExpiredCertificateFailsClosedUntilItsRepair(t *testing.T) {
	world := newWorld(t)
	dir, authority := t.TempDir(), newIssuer(t)
	mount(t, dir, authority.issue(t, time.Now().Add(-10*time.Minute), 10*time.Minute+45*time.Second))
	front := newBalancer(t)
	guard := launch(t, "--url="+front.url(), "--certs=files", "--cert-dir="+dir)
	front.add(guard)
	awaitReady(t, guard)
	awaitDenial(t, world)
	eventually(t, "the certificate's end is near, and told", func() bool {
		_, output := run(t, "status")
		return strings.Contains(output, "has not been renewed")
	})
	eventually(t, "the guard says that it is not ready", func() bool { return strings.Contains(readyz(guard), "[-]certificate") })
	front.cut() // a connection that is open stays good
	ours, got := denied(t.Context(), world)
	if ours || !strings.Contains(got, "certificate has expired") {
		t.Errorf("with an expired certificate, a write came to: %s", got)
	}
	if ends, found := metric(t, guard, "apigw_guardian_certificate_not_after_seconds", "leaf"); !found || ends > float64(time.Now().Unix()) {
		t.Errorf("the metric says that the leaf ends at %v (found %v)", ends, found)
	}
	code, output := run(t, "status")
	if code != 3 || !strings.Contains(output, "has expired") {
		t.Errorf("status exits %d:\n%s", code, output)
	}
	mount(t, dir, authority.issue(t, time.Now().Add(-time.Minute), time.Hour))
	repaired := time.Now()
	awaitDenial(t, world)
	t.Logf("service was back %s after the repair", time.Since(repaired).Round(time.Millisecond))
	awaitReady(t, guard)
}

// Certificates of a machine whose clock is an hour off, either way, are as good as any other.
func TestAnHourOfClockSkewDoesNoHarm(t *testing.T) {
	world := newWorld(t)
	for name, skew := range map[string]time.Duration{"an hour late": -time.Hour, "an hour early": time.Hour} {
		t.Run("the authority's clock is "+name, func(t *testing.T) {
			makeAuthority(t, skew)
			guard := launch(t)
			awaitReady(t, guard)
			awaitDenial(t, world)
		})
		t.Run("the leaf's clock is "+name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, makeAuthority(t, skew))
			guard := launch(t, "--certs=files", "--cert-dir="+dir)
			awaitReady(t, guard)
			awaitDenial(t, world)
		})
	}
}

// Every wrong file is refused at the start, by a message of one line and exit code 1.
func TestWrongFilesEndTheStart(t *testing.T) {
	authority := newIssuer(t)
	good := authority.issue(t, time.Now().Add(-time.Minute), time.Hour)
	foreign := authority.issue(t, time.Now().Add(-time.Minute), time.Hour)
	cases := map[string]struct {
		files map[string][]byte
		host  string
		says  string
	}{
		"a foreign key":     {map[string][]byte{"tls.crt": good["tls.crt"], "tls.key": foreign["tls.key"], "ca.crt": good["ca.crt"]}, "127.0.0.1", "tls.key is not the key of tls.crt"},
		"another host":      {good, "127.0.0.2", "tls.crt is not for 127.0.0.2 (it is for [127.0.0.1])"},
		"an expired one":    {authority.issue(t, time.Now().Add(-time.Hour), time.Minute), "127.0.0.1", "tls.crt has expired on"},
		"without authority": {map[string][]byte{"tls.crt": good["tls.crt"], "tls.key": good["tls.key"]}, "127.0.0.1", "ca.crt is missing"},
		"nothing":           {nil, "127.0.0.1", "tls.crt is missing"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mount(t, dir, tc.files)
			code, output := run(t, "webhook", "--listen=127.0.0.1:0", "--probe-listen=0", "--metrics-listen=0",
				"--url=https://"+tc.host+":1", "--certs=files", "--cert-dir="+dir)
			if code != 1 || !strings.Contains(output, "Error: ") || !strings.Contains(output, tc.says) {
				t.Errorf("exit %d:\n%s", code, output)
			}
		})
	}
}

// makeAuthority makes the guard's own authority and a leaf on a machine whose clock is off, and returns them as files.
func makeAuthority(t *testing.T, skew time.Duration) map[string][]byte {
	t.Helper()
	removeSecret(t)
	authority, err := certs.LoadAuthority(t.Context(), clients(t).CoreV1(), certs.Options{
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

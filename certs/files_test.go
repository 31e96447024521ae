// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// issuer is somebody else's authority.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIssuer(t *testing.T, now time.Time) issuer {
	t.Helper()
	data := forge(t, now, func(c *x509.Certificate) { c.NotAfter = now.Add(1000 * time.Hour) })
	pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	return issuer{certificate: pair.Leaf, key: pair.PrivateKey.(*ecdsa.PrivateKey)}
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue makes the three files for a leaf of a hundred hours.
func (i issuer) issue(t *testing.T, now time.Time, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.Unix()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(100 * time.Hour),
		DNSNames: []string{"guard.guard.svc"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, i.certificate, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": asPEM("CERTIFICATE", der), "tls.key": asPEM("PRIVATE KEY", rawKey),
		"ca.crt": asPEM("CERTIFICATE", i.certificate.Raw),
	}
}

// write replaces the folder's files by these.
func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if data, found := files[name]; found {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWrongFilesAreRefusedWithTheirReason(t *testing.T) {
	at := newClock()
	one, other := newIssuer(t, at.now), newIssuer(t, at.now)
	good := func() map[string][]byte { return one.issue(t, at.now, asIs) }
	cases := map[string]struct {
		files map[string][]byte
		says  string
	}{
		"there are none":                {nil, "tls.crt is missing"},
		"the key is missing":            {without(good(), "tls.key"), "tls.key is missing"},
		"the authority is missing":      {without(good(), "ca.crt"), "ca.crt is missing"},
		"the certificate is no PEM":     {with(good(), "tls.crt", []byte("junk")), "tls.crt is not a PEM certificate"},
		"the certificate is empty":      {with(good(), "tls.crt", nil), "tls.crt is not a PEM certificate"},
		"the key is no PEM":             {with(good(), "tls.key", []byte("junk")), "tls.key is not a PEM private key"},
		"the authority is no PEM":       {with(good(), "ca.crt", []byte("junk")), "ca.crt is not a list of PEM certificates"},
		"the key is another one's":      {with(good(), "tls.key", good()["tls.key"]), "tls.key is not the key of tls.crt"},
		"the name is another one":       {one.issue(t, at.now, func(c *x509.Certificate) { c.DNSNames = []string{"other.svc"} }), "is not for guard.guard.svc (it is for [other.svc])"},
		"it has expired":                {one.issue(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) }), "tls.crt has expired on 2026-08-01T11:59:59Z"},
		"it is of the future":           {one.issue(t, at.now, func(c *x509.Certificate) { c.NotBefore = at.now.Add(time.Second) }), "tls.crt is not valid before 2026-08-01T12:00:01Z"},
		"another authority signed it":   {with(good(), "ca.crt", asPEM("CERTIFICATE", other.certificate.Raw)), "ca.crt does not hold the CA that signed tls.crt"},
		"it is for clients only":        {one.issue(t, at.now, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "that signed tls.crt for serving"},
		"the key stands in its place":   {with(good(), "tls.crt", good()["tls.key"]), "tls.crt is not a PEM certificate"},
		"two certificates are in wrong": {with(good(), "tls.crt", append(asPEM("CERTIFICATE", one.certificate.Raw), good()["tls.crt"]...)), "tls.key is not the key of tls.crt"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tc.files)
			_, err := LoadFiles(t.Context(), FilesOptions{Dir: dir, Host: "guard.guard.svc", Now: at.Now})
			if !errors.Is(err, ErrUnusableFiles) {
				t.Fatalf("error %v, want ErrUnusableFiles", err)
			}
			for _, part := range []string{dir, tc.says, "provide"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if len(tc.files["tls.key"]) > 100 && strings.Contains(err.Error(), string(tc.files["tls.key"][60:80])) {
				t.Errorf("error %q contains a piece of tls.key", err)
			}
		})
	}
}

func TestAFileThatCannotBeReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, newIssuer(t, time.Now()).issue(t, time.Now(), asIs))
	if err := errors.Join(os.Remove(filepath.Join(dir, "tls.key")), os.Mkdir(filepath.Join(dir, "tls.key"), 0o700)); err != nil {
		t.Fatal(err)
	}
	_, err := LoadFiles(t.Context(), FilesOptions{Dir: dir, Host: "guard.guard.svc"})
	if !errors.Is(err, ErrUnusableFiles) || !strings.Contains(err.Error(), "tls.key cannot be read") {
		t.Errorf("error %v", err)
	}
}

// provided is a guard's folder, and the registration that its keeper would keep: it follows at once, or not at all.
type guardDir struct {
	t     *testing.T
	at    *clock
	dir   string
	files *Files
	shown []byte
}

func newProvided(t *testing.T, files map[string][]byte, at *clock) *guardDir {
	t.Helper()
	p := &guardDir{t: t, at: at, dir: t.TempDir()}
	write(t, p.dir, files)
	var err error
	p.files, err = LoadFiles(t.Context(), FilesOptions{
		Dir: p.dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) { return p.shown, p.shown != nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.shown = p.files.Bundle()
	p.after(time.Minute) // it is seen,
	p.after(time.Minute) // and has been for a while
	return p
}

// after lets time pass, and has a look at its end.
func (p *guardDir) after(d time.Duration) {
	p.t.Helper()
	p.at.now = p.at.now.Add(d)
	if err := p.files.round(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// requireServing wants the leaf of these files to be served.
func (p *guardDir) requireServing(when string, files map[string][]byte) {
	p.t.Helper()
	certificate, err := p.files.GetCertificate(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if got := asPEM("CERTIFICATE", certificate.Certificate[0]); !bytes.Equal(got, files["tls.crt"]) {
		p.t.Errorf("%s: another certificate is served", when)
	}
}

func (p *guardDir) requireBundle(when string, parts ...map[string][]byte) {
	p.t.Helper()
	var want []string
	for _, files := range parts {
		want = append(want, string(files["ca.crt"]))
	}
	if diff := cmp.Diff(strings.Join(want, ""), string(p.files.Bundle())); diff != "" {
		p.t.Errorf("%s: the bundle (-want +got):\n%s", when, diff)
	}
}

func TestARenewedCertificateIsServedAtOnce(t *testing.T) {
	at := newClock()
	one := newIssuer(t, at.now)
	old := one.issue(t, at.now, asIs)
	p := newProvided(t, old, at)
	renewed := one.issue(t, at.now, asIs)
	write(t, p.dir, renewed)
	p.requireServing("before the next look", old)
	p.after(time.Second)
	p.requireServing("after it", renewed)
	p.requireBundle("after it", renewed)
}

func TestAnotherAuthorityIsServedOnceItIsTrusted(t *testing.T) {
	at := newClock()
	old, renewed := newIssuer(t, at.now).issue(t, at.now, asIs), newIssuer(t, at.now).issue(t, at.now, func(c *x509.Certificate) {
		c.NotAfter = at.now.Add(500 * time.Hour)
	})
	p := newProvided(t, old, at)
	write(t, p.dir, renewed)
	p.after(time.Hour)
	p.requireServing("while the registration does not follow", old)
	p.requireBundle("while the registration does not follow", renewed, old)
	p.shown = p.files.Bundle()
	p.after(time.Second)
	p.requireServing("once the registration follows", old)
	p.after(14 * time.Second)
	p.requireServing("while an API server may not have noticed", old)
	p.after(time.Second)
	p.requireServing("once all have noticed", renewed)
	p.requireBundle("while another replica may have the old files", renewed, old)
	p.after(101 * time.Hour)
	p.requireBundle("once the old certificate has ended", renewed)
}

func TestWrongFilesKeepTheLastGoodOnes(t *testing.T) {
	at := newClock()
	one := newIssuer(t, at.now)
	good := one.issue(t, at.now, asIs)
	for name, wrong := range map[string]map[string][]byte{
		"none at all":       nil,
		"a foreign key":     with(good, "tls.key", one.issue(t, at.now, asIs)["tls.key"]),
		"an expired one":    one.issue(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) }),
		"another host's":    one.issue(t, at.now, func(c *x509.Certificate) { c.DNSNames = []string{"other"} }),
		"without authority": without(good, "ca.crt"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvided(t, good, &clock{at.now})
			write(t, p.dir, wrong)
			p.after(time.Second)
			p.requireServing("with wrong files", good)
			state := p.files.State()
			if state.Problem == "" || state.Ready(p.at.now) != nil {
				t.Errorf("problem %q, ready %v, want one that is told and does not take the guard away", state.Problem, state.Ready(p.at.now))
			}
			write(t, p.dir, good)
			p.after(time.Second)
			if problem := p.files.State().Problem; problem != "" {
				t.Errorf("after the repair: %q", problem)
			}
		})
	}
}

func TestAnExpiredCertificateIsToldBeforeItHurts(t *testing.T) {
	at := newClock()
	p := newProvided(t, newIssuer(t, at.now).issue(t, at.now, asIs), at)
	p.after(80 * time.Hour)
	if problem := p.files.State().Problem; problem != "" {
		t.Errorf("long before its end: %q", problem)
	}
	p.after(4 * time.Hour)
	state := p.files.State()
	if !strings.Contains(state.Problem, "tls.crt expires on 2026-08-05T16:00:00Z") || state.Ready(at.now) != nil {
		t.Errorf("problem %q, ready %v", state.Problem, state.Ready(at.now))
	}
	p.after(17 * time.Hour)
	state = p.files.State()
	if !strings.Contains(state.Problem, "tls.crt has expired") || !errors.Is(state.Ready(at.now), errNoCertificate) {
		t.Errorf("problem %q, ready %v", state.Problem, state.Ready(at.now))
	}
	// Whatever comes now is served at once: nobody has anything to lose.
	repaired := newIssuer(t, at.now).issue(t, at.now, asIs)
	write(t, p.dir, repaired)
	p.after(time.Second)
	p.requireServing("after the repair", repaired)
	if state := p.files.State(); state.Problem != "" || state.Ready(at.now) != nil {
		t.Errorf("after the repair: problem %q, ready %v", state.Problem, state.Ready(at.now))
	}
}

func TestAReplicaIsReadyOnceTheRegistrationTrustsIt(t *testing.T) {
	at := newClock()
	dir, shown := t.TempDir(), newIssuer(t, at.now).issue(t, at.now, asIs)["ca.crt"]
	write(t, dir, newIssuer(t, at.now).issue(t, at.now, asIs))
	files, err := LoadFiles(t.Context(), FilesOptions{
		Dir: dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) { return shown, true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := files.State().Ready(at.now); !errors.Is(err, errNotTrustedYet) {
		t.Errorf("with a registration that shows another authority: %v, want errNotTrustedYet", err)
	}
	for _, bundle := range [][]byte{files.Bundle(), []byte("spoilt")} { // it stays ready: unready helps nobody
		shown = bundle
		if err := files.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := files.State().Ready(at.now); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

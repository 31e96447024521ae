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

// issuer is a CA that provides files.
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

// write replaces the files of the directory.
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
		"there are none":               {nil, "tls.crt is missing"},
		"the key is missing":           {without(good(), "tls.key"), "tls.key is missing"},
		"the CA is missing":            {without(good(), "ca.crt"), "ca.crt is missing"},
		"the certificate is no PEM":    {with(good(), "tls.crt", []byte("junk")), "tls.crt is not a PEM certificate"},
		"the certificate is empty":     {with(good(), "tls.crt", nil), "tls.crt is not a PEM certificate"},
		"the key is no PEM":            {with(good(), "tls.key", []byte("junk")), "tls.key is not a PEM private key"},
		"the CA is no PEM":             {with(good(), "ca.crt", []byte("junk")), "ca.crt is not a list of PEM certificates"},
		"the key is of another one":    {with(good(), "tls.key", good()["tls.key"]), "tls.key is not the key of tls.crt"},
		"it is for another name":       {one.issue(t, at.now, func(c *x509.Certificate) { c.DNSNames = []string{"other.svc"} }), "is not for guard.guard.svc (it is for [other.svc])"},
		"it has expired":               {one.issue(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) }), "tls.crt has expired on 2026-08-01T11:59:59Z"},
		"it is of the future":          {one.issue(t, at.now, func(c *x509.Certificate) { c.NotBefore = at.now.Add(time.Second) }), "tls.crt is not valid before 2026-08-01T12:00:01Z"},
		"another CA signed it":         {with(good(), "ca.crt", asPEM("CERTIFICATE", other.certificate.Raw)), "ca.crt does not hold the CA that signed tls.crt"},
		"it is for clients only":       {one.issue(t, at.now, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "that signed tls.crt for serving"},
		"it holds the key":             {with(good(), "tls.crt", good()["tls.key"]), "tls.crt is not a PEM certificate"},
		"the CA comes before the leaf": {with(good(), "tls.crt", append(asPEM("CERTIFICATE", one.certificate.Raw), good()["tls.crt"]...)), "tls.key is not the key of tls.crt"},
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

// guardDir is the directory of a guard, and a live bundle that the test sets.
type guardDir struct {
	t     *testing.T
	at    *clock
	dir   string
	files *Files
	live  []byte
}

func newGuardDir(t *testing.T, files map[string][]byte, at *clock) *guardDir {
	t.Helper()
	p := &guardDir{t: t, at: at, dir: t.TempDir()}
	write(t, p.dir, files)
	var err error
	p.files, err = LoadFiles(t.Context(), FilesOptions{
		Dir: p.dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) { return p.live, p.live != nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.live = p.files.Bundle()
	p.after(time.Minute) // it is read
	p.after(time.Minute) // and has propagated
	return p
}

// after lets time pass, and then runs a round.
func (p *guardDir) after(d time.Duration) {
	p.t.Helper()
	p.at.now = p.at.now.Add(d)
	if err := p.files.round(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// requireServing requires that the leaf of these files is served.
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

func TestAChainWithAnIntermediateIsServed(t *testing.T) {
	at := newClock()
	root := newIssuer(t, at.now)
	below := root.issue(t, at.now, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	pair, err := tls.X509KeyPair(below["tls.crt"], below["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	intermediate := issuer{certificate: pair.Leaf, key: pair.PrivateKey.(*ecdsa.PrivateKey)}
	files := intermediate.issue(t, at.now, asIs)
	files["tls.crt"] = append(files["tls.crt"], below["tls.crt"]...)
	files["ca.crt"] = below["ca.crt"]
	p := newGuardDir(t, files, at)
	p.requireBundle("with an intermediate", files)
	state := p.files.State()
	if state.Ready(at.now) != nil || !state.Authority.Equal(root.certificate) {
		t.Errorf("ready %v, CA %v, want the root", state.Ready(at.now), state.Authority.SerialNumber)
	}
	served, err := p.files.GetCertificate(nil)
	if err != nil || len(served.Certificate) != 2 || !bytes.Equal(served.Certificate[1], pair.Leaf.Raw) {
		t.Errorf("%d certificates are served (%v), want the leaf and the intermediate", len(served.Certificate), err)
	}
}

func TestARenewedCertificateIsServedAtOnce(t *testing.T) {
	at := newClock()
	one := newIssuer(t, at.now)
	old := one.issue(t, at.now, asIs)
	p := newGuardDir(t, old, at)
	renewed := one.issue(t, at.now, asIs)
	write(t, p.dir, renewed)
	p.requireServing("before the next round", old)
	p.after(time.Second)
	p.requireServing("after it", renewed)
	p.requireBundle("after it", renewed)
}

func TestACandidateIsServedAfterItsCAHasPropagated(t *testing.T) {
	at := newClock()
	old, renewed := newIssuer(t, at.now).issue(t, at.now, asIs), newIssuer(t, at.now).issue(t, at.now, func(c *x509.Certificate) {
		c.NotAfter = at.now.Add(500 * time.Hour)
	})
	p := newGuardDir(t, old, at)
	write(t, p.dir, renewed)
	p.after(time.Hour)
	p.requireServing("while the live bundle lacks its CA", old)
	p.requireBundle("while the live bundle lacks its CA", renewed, old)
	p.live = p.files.Bundle()
	p.after(time.Second)
	p.requireServing("once the live bundle holds its CA", old)
	p.after(14 * time.Second)
	p.requireServing("before its CA has propagated", old)
	p.after(time.Second)
	p.requireServing("after its CA has propagated", renewed)
	p.requireBundle("while another replica may serve the old certificate", renewed, old)
	p.after(101 * time.Hour)
	p.requireBundle("after the old certificate has expired", renewed)
}

func TestWrongFilesKeepTheLastGoodOnes(t *testing.T) {
	at := newClock()
	one := newIssuer(t, at.now)
	good := one.issue(t, at.now, asIs)
	for name, wrong := range map[string]map[string][]byte{
		"none at all":     nil,
		"a unknown key":   with(good, "tls.key", one.issue(t, at.now, asIs)["tls.key"]),
		"an expired one":  one.issue(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) }),
		"of another host": one.issue(t, at.now, func(c *x509.Certificate) { c.DNSNames = []string{"other"} }),
		"without CA":      without(good, "ca.crt"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newGuardDir(t, good, &clock{at.now})
			write(t, p.dir, wrong)
			p.after(time.Second)
			p.requireServing("with wrong files", good)
			state := p.files.State()
			if state.Problem == "" || state.Ready(p.at.now) != nil {
				t.Errorf("problem %q, ready %v, want a problem of a guard that stays ready", state.Problem, state.Ready(p.at.now))
			}
			write(t, p.dir, good)
			p.after(time.Second)
			if problem := p.files.State().Problem; problem != "" {
				t.Errorf("after the repair: %q", problem)
			}
		})
	}
}

func TestAnExpiryIsReportedInAdvance(t *testing.T) {
	at := newClock()
	p := newGuardDir(t, newIssuer(t, at.now).issue(t, at.now, asIs), at)
	p.after(80 * time.Hour)
	if problem := p.files.State().Problem; problem != "" {
		t.Errorf("long before its expiry: %q", problem)
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
	// A candidate is current at once: an expired certificate cannot be served.
	repaired := newIssuer(t, at.now).issue(t, at.now, asIs)
	write(t, p.dir, repaired)
	p.after(time.Second)
	p.requireServing("after the repair", repaired)
	if state := p.files.State(); state.Problem != "" || state.Ready(at.now) != nil {
		t.Errorf("after the repair: problem %q, ready %v", state.Problem, state.Ready(at.now))
	}
}

func TestAReplicaIsReadyOnceAPIServersTrustIt(t *testing.T) {
	at := newClock()
	dir, live := t.TempDir(), newIssuer(t, at.now).issue(t, at.now, asIs)["ca.crt"]
	write(t, dir, newIssuer(t, at.now).issue(t, at.now, asIs))
	files, err := LoadFiles(t.Context(), FilesOptions{
		Dir: dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) { return live, true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := files.State().Ready(at.now); !errors.Is(err, errNotTrustedYet) {
		t.Errorf("with a live bundle that holds another CA: %v, want errNotTrustedYet", err)
	}
	for _, bundle := range [][]byte{files.Bundle(), []byte("spoilt")} { // it stays ready
		live = bundle
		if err := files.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := files.State().Ready(at.now); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// Beside the CA of another source, which replicas serve with and every API server accepts, a replica waits until its own has propagated.
func TestAReplicaOfAnotherSourceWaitsForItsCA(t *testing.T) {
	at := newClock()
	other := newIssuer(t, at.now).issue(t, at.now, asIs)["ca.crt"]
	own := newIssuer(t, at.now).issue(t, at.now, asIs)
	dir := t.TempDir()
	write(t, dir, own)
	files, err := LoadFiles(t.Context(), FilesOptions{
		Dir: dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) {
			return append(bytes.Clone(other), own["ca.crt"]...), true, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  error
	}{{filesPropagation - time.Second, errNotTrustedYet}, {time.Second, nil}} {
		at.now = at.now.Add(step.after)
		if err := files.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := files.State().Ready(at.now); !errors.Is(err, step.want) {
			t.Errorf("after %s more: %v, want %v", step.after, err, step.want)
		}
	}
}

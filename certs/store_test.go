// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// forge makes a Secret's data from a self-signed certificate that a case may change.
func forge(t *testing.T, now time.Time, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}),
	}
}

func asIs(*x509.Certificate) {}

func TestASecretWithoutAWorkingCAIsRefused(t *testing.T) {
	at := newClock()
	good := func() map[string][]byte { return forge(t, at.now, asIs) }
	twice := good()
	cases := map[string]struct {
		data map[string][]byte
		says string
	}{
		"it is empty":               {nil, "tls.crt is missing"},
		"it has no certificate":     {without(good(), corev1.TLSCertKey), "tls.crt is missing"},
		"it has no key":             {without(good(), corev1.TLSPrivateKeyKey), "tls.key is missing"},
		"the certificate is no PEM": {with(good(), corev1.TLSCertKey, []byte("junk")), "not a PEM certificate"},
		"the certificate is cut": {
			with(good(), corev1.TLSCertKey, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30}})),
			"not a PEM certificate",
		},
		"there are two certificates": {
			with(twice, corev1.TLSCertKey, bytes.Repeat(twice[corev1.TLSCertKey], 2)), "2 certificates",
		},
		"the key is cut":              {with(good(), corev1.TLSPrivateKeyKey, good()[corev1.TLSPrivateKeyKey][:90]), "not a PEM private key"},
		"the key lost its PEM armour": {with(good(), corev1.TLSPrivateKeyKey, body(good())), "not a PEM private key"},
		"the key is of another one":   {with(good(), corev1.TLSPrivateKeyKey, good()[corev1.TLSPrivateKeyKey]), "not the key of"},
		"the next CA has no key":      {with(good(), "next.crt", good()[corev1.TLSCertKey]), "next.key is missing"},
		"the next CA is junk":         {with(with(good(), "next.crt", []byte("junk")), "next.key", []byte("junk")), "next.crt is not a PEM certificate"},
		"the previous ones are junk":  {with(good(), "previous.crt", []byte("junk")), "previous.crt is not a list"},
		"there are too many previous ones": {
			with(good(), "previous.crt", bytes.Repeat(good()[corev1.TLSCertKey], 65)), "more than 64",
		},
		"the certificate is no CA":     {forge(t, at.now, func(c *x509.Certificate) { c.IsCA = false }), "not the certificate of a CA"},
		"the certificate may not sign": {forge(t, at.now, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), "certSign"},
		"the CA is not valid yet": {
			forge(t, at.now, func(c *x509.Certificate) { c.NotBefore = at.now.Add(time.Second) }), "not valid before",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := loadFrom(t, at, tc.data)
			if !errors.Is(err, ErrUnusableCA) {
				t.Fatalf("error %v, want ErrUnusableCA", err)
			}
			for _, part := range []string{namespace + "/" + SecretName, tc.says, "delete", "restart"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			for piece := range bytes.FieldsSeq(tc.data[corev1.TLSPrivateKeyKey]) {
				if len(piece) > 8 && bytes.Contains([]byte(err.Error()), piece[:8]) {
					t.Errorf("error %q contains a piece of tls.key", err)
				}
			}
		})
	}
}

func TestACAOfAnAdministratorIsUsed(t *testing.T) {
	at := newClock()
	data := forge(t, at.now, asIs)
	block, _ := pem.Decode(data[corev1.TLSPrivateKeyKey])
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]map[string][]byte{
		"with a PKCS 8 key": data,
		"with a SEC 1 key":  with(data, corev1.TLSPrivateKeyKey, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})),
		"with a text above": with(data, corev1.TLSCertKey, append([]byte("made by hand\n"), data[corev1.TLSCertKey]...)),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			if err := loadFrom(t, at, data); err != nil {
				t.Error(err)
			}
		})
	}
}

// loadFrom returns the error of LoadAuthority for a Secret with data, or of its first leaf.
func loadFrom(t *testing.T, at *clock, data map[string][]byte) error {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName, ResourceVersion: "1"},
		Data:       data,
	}
	authority, err := LoadAuthority(t.Context(), fake.NewClientset(secret).CoreV1(), at.options())
	if err != nil {
		return err
	}
	return leafOf(t, authority).CheckSignatureFrom(caOf(t, authority))
}

// with returns data with another value of key.
func with(data map[string][]byte, key string, value []byte) map[string][]byte {
	changed := without(data, key)
	changed[key] = value
	return changed
}

// without returns data without key.
func without(data map[string][]byte, key string) map[string][]byte {
	changed := map[string][]byte{}
	for k, v := range data {
		if k != key {
			changed[k] = v
		}
	}
	return changed
}

// body returns the key without its first and last line.
func body(data map[string][]byte) []byte {
	lines := bytes.Split(data[corev1.TLSPrivateKeyKey], []byte("\n"))
	return bytes.Join(lines[1:len(lines)-2], []byte("\n"))
}

// A cluster that was off until its CA expired starts without an administrator.
func TestAnExpiredCAIsReplacedAtTheStart(t *testing.T) {
	at := newClock()
	data := forge(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) })
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName, ResourceVersion: "1"}, Data: data,
	}
	client := fake.NewClientset(secret).CoreV1()
	authority := load(t, client, at.options())
	leaf := leafOf(t, authority)
	if !leaf.NotAfter.Equal(at.now.Add(DefaultLeafLifetime)) {
		t.Errorf("the leaf expires %s", leaf.NotAfter)
	}
	stored, err := client.Secrets(namespace).Get(t.Context(), SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(stored.Data[corev1.TLSCertKey], data[corev1.TLSCertKey]) || len(stored.Data["previous.crt"]) == 0 {
		t.Error("the Secret was not replaced, or lacks the old certificate")
	}
}

// A guard that runs reports its Secret, and goes on serving.
func TestAMissingOrUnusableSecretIsReported(t *testing.T) {
	spoil := map[string]struct {
		do   func(t *testing.T, secrets corev1client.SecretInterface)
		says string
	}{
		"deleted": {func(t *testing.T, secrets corev1client.SecretInterface) {
			t.Helper()
			if err := secrets.Delete(t.Context(), SecretName, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
		"unusable": {func(t *testing.T, secrets corev1client.SecretInterface) {
			t.Helper()
			secret, err := secrets.Get(t.Context(), SecretName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			secret.Data = map[string][]byte{corev1.TLSCertKey: []byte("junk"), corev1.TLSPrivateKeyKey: []byte("junk")}
			if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "tls.crt is not a PEM certificate"},
	}
	for name, tc := range spoil {
		t.Run("when it is "+name, func(t *testing.T) {
			client, at, changes := fake.NewClientset().CoreV1(), newClock(), 0
			opts := at.options()
			opts.Changed = func() { changes++ }
			authority := load(t, client, opts)
			before := leafOf(t, authority)
			tc.do(t, client.Secrets(namespace))
			if err := authority.round(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			state := authority.State()
			if !strings.Contains(state.Problem, tc.says) || changes != 1 {
				t.Errorf("problem %q and %d calls of Changed, want a problem that says %q, and one call", state.Problem, changes, tc.says)
			}
			if state.Ready(at.now) != nil || state.Leaf != before {
				t.Errorf("ready %v, or another leaf", state.Ready(at.now))
			}
			bundle, err := authority.Refresh(t.Context())
			if err != nil || !bytes.Equal(bundle, authority.Bundle()) {
				t.Errorf("the bundle is not what this replica holds (%v)", err)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// keysOfOpenssl returns private keys in the forms in which openssl writes them: ecparam -genkey, genrsa -traditional, genpkey, and
// pkcs12 -nodes, which writes text between the blocks.
func keysOfOpenssl(t *testing.T) map[string]struct {
	key crypto.Signer
	pem []byte
} {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := func(key any) []byte {
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pkcs8
	}
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	secp384r1, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 34})
	if err != nil {
		t.Fatal(err)
	}
	parameters := block("EC PARAMETERS", secp384r1)
	bag := []byte("Bag Attributes\n    localKeyID: 01 02 03\nKey Attributes: <No Attributes>\n")
	type one = struct {
		key crypto.Signer
		pem []byte
	}
	return map[string]one{
		"RSA, PKCS 1":                 {rsaKey, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		"RSA, PKCS 8":                 {rsaKey, block("PRIVATE KEY", der(rsaKey))},
		"ECDSA, SEC 1":                {ecKey, block("EC PRIVATE KEY", sec1)},
		"ECDSA, parameters and SEC 1": {ecKey, slices.Concat(parameters, block("EC PRIVATE KEY", sec1))},
		"ECDSA, SEC 1 and parameters": {ecKey, slices.Concat(block("EC PRIVATE KEY", sec1), parameters)},
		"ECDSA, PKCS 8":               {ecKey, block("PRIVATE KEY", der(ecKey))},
		"Ed25519, PKCS 8":             {edKey, block("PRIVATE KEY", der(edKey))},
		"with text before and after":  {ecKey, slices.Concat(bag, block("PRIVATE KEY", der(ecKey)), []byte("\n# the end\n"))},
		"with CRLF":                   {edKey, bytes.ReplaceAll(block("PRIVATE KEY", der(edKey)), []byte("\n"), []byte("\r\n"))},
		"with a byte order mark":      {edKey, slices.Concat(byteOrderMark, block("PRIVATE KEY", der(edKey)))},
		"with an unknown block":       {edKey, slices.Concat(block("X", []byte("x")), block("PRIVATE KEY", der(edKey)))},
	}
}

func TestKeysOfEveryFormAreServed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca := newIssuer(t, now)
	other, err := newCA(keyPair{}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range keysOfOpenssl(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaf, err := keyPair{certificate: ca.certificate, key: ca.key}.sign(&x509.Certificate{
				NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"guard"},
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}, form.key)
			if err != nil {
				t.Fatal(err)
			}
			chain := slices.Concat([]byte("subject=CN=guard\n"), block("CERTIFICATE", leaf.certificate.Raw), []byte("\nissuer\n"),
				block("CERTIFICATE", other.certificate.Raw), form.pem)
			cas := slices.Concat(form.pem, block("CERTIFICATE", ca.certificate.Raw), []byte("trailing"))
			p, reason := parseProvided(contents{string(chain), string(form.pem), string(cas)}, "guard", now)
			if reason != "" || len(p.intermediates) != 1 || len(p.cas) != 1 || len(p.certificate.Certificate) != 2 {
				t.Errorf("got %q, %d intermediates, %d CAs", reason, len(p.intermediates), len(p.cas))
			}
		})
	}
}

func TestAReasonNamesTheBlock(t *testing.T) {
	t.Parallel()
	key := keysOfOpenssl(t)["RSA, PKCS 1"].pem
	ca := newIssuer(t, time.Now()).certificate.Raw
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchangeDER, err := x509.MarshalPKCS8PrivateKey(exchange)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x"),
	})
	halfway := key[:len(key)/2]
	for name, test := range map[string]struct {
		data, want string
	}{
		"nothing":               {"", "it has no PEM block"},
		"text":                  {"junk", "it has no PEM block"},
		"a certificate":         {string(block("CERTIFICATE", ca)), "it has no private key, only CERTIFICATE"},
		"a broken key":          {string(block("EC PARAMETERS", nil)) + string(block("EC PRIVATE KEY", []byte("x"))), "block 2 (EC PRIVATE KEY) cannot be parsed"},
		"an encrypted PKCS 8":   {string(block("ENCRYPTED PRIVATE KEY", []byte("x"))), "block 1 (ENCRYPTED PRIVATE KEY) is encrypted"},
		"an encrypted PKCS 1":   {string(encrypted), "block 1 (RSA PRIVATE KEY) is encrypted"},
		"a key for agreement":   {string(block("PRIVATE KEY", exchangeDER)), "block 1 (PRIVATE KEY) is a key that cannot sign"},
		"half a key":            {string(halfway), "block 1 is not valid PEM"},
		"half a key, and a key": {string(halfway) + "\n" + string(key), "block 1 is not valid PEM"},
	} {
		if _, reason := parseKey([]byte(test.data)); !strings.HasPrefix(reason, test.want) {
			t.Errorf("%s: got %q, want %q", name, reason, test.want)
		}
	}
	chain := slices.Concat(block("CERTIFICATE", ca), block("CERTIFICATE", []byte("x")))
	if _, reason := parseCertificates(chain); reason != "block 2 (CERTIFICATE) cannot be parsed" {
		t.Errorf("got %q", reason)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const (
	caName   = "apigw-guardian CA"
	leafName = "apigw-guardian"
)

// pair is a certificate with its private key; its zero value is none.
type pair struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newCA makes an authority that no other one endorses.
func newCA(lifetime time.Duration, now time.Time) (pair, error) {
	return newSuccessor(pair{}, lifetime, now)
}

// newSuccessor makes an authority that the one before it endorses; zero for none.
func newSuccessor(before pair, lifetime time.Duration, now time.Time) (pair, error) {
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	template := caTemplate(lifetime, now)
	if before.certificate != nil {
		endorsement, err := before.endorse(key.Public())
		if err != nil {
			return pair{}, err
		}
		template.ExtraExtensions = []pkix.Extension{endorsement}
	}
	certificate, err := create(template, template, key.Public(), key)
	if err != nil {
		return pair{}, fmt.Errorf("make the CA: %w", err)
	}
	return pair{certificate: certificate, key: key}, nil
}

// caTemplate may sign leaves, and no further authority.
func caTemplate(lifetime time.Duration, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: caName},
		NotBefore:             now.Add(-Backdating),
		NotAfter:              now.Add(lifetime),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
}

// leafTemplate is for serving only, and lies within the life of ca.
func leafTemplate(opts Options, ca *x509.Certificate, now time.Time) *x509.Certificate {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: leafName},
		NotBefore:             now.Add(-Backdating),
		NotAfter:              now.Add(opts.LeafLifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotBefore.Before(ca.NotBefore) {
		template.NotBefore = ca.NotBefore
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	for _, host := range opts.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return template
}

// sign makes a new key and a certificate for it.
func (p pair) sign(template *x509.Certificate) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	parsed, err := create(template, p.certificate, key.Public(), p.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{parsed.Raw}, PrivateKey: key, Leaf: parsed}, nil
}

// create returns a certificate for the public key, signed with the parent's key.
func create(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newKey returns a P-256 key: every TLS 1.3 client knows it, and it signs in tens of
// microseconds, in a handshake as in an issue.
func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return key, nil
}

// encodeKey returns the key in PEM. PKCS 8 holds every kind of key.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyutil.PrivateKeyBlockType, Bytes: der}), nil
}

// parseKeyPair reads certificates and the private key of the first one. reason says what is wrong, by the names of the two, and
// quotes neither; "" for nothing.
func parseKeyPair(certName, keyName string, certPEM, keyPEM []byte) (chain []*x509.Certificate, key crypto.Signer, reason string) {
	chain, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return nil, nil, certName + " is not a PEM certificate"
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	key, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, nil, keyName + " is not a PEM private key"
	}
	public, ok := key.Public().(interface {
		Equal(other crypto.PublicKey) bool
	})
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, nil, keyName + " is not the key of " + certName
	}
	return chain, key, ""
}

// expired is true for no certificate.
func (p pair) expired(now time.Time) bool {
	return p.certificate == nil || now.After(p.certificate.NotAfter)
}

// untimely says why p is not valid at this moment, or nothing.
func (p pair) untimely(now time.Time) string { return untimely("tls.crt", p.certificate, now) }

// untimely says why the certificate in the file or key of that name is not valid at this moment, or nothing.
func untimely(name string, certificate *x509.Certificate, now time.Time) string {
	switch {
	case now.After(certificate.NotAfter):
		return name + " has expired on " + certificate.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(certificate.NotBefore):
		return name + " is not valid before " + certificate.NotBefore.UTC().Format(time.RFC3339) + " (look at this machine's clock first)"
	}
	return ""
}

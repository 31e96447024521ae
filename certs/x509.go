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
	"math/big"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	caName   = "apigw-guardian CA"
	leafName = "apigw-guardian"

	// serialBits is the length of the random serials: RFC 5280 (4.1.2.2) allows 20
	// octets, and 128 random bits do not repeat.
	serialBits = 128
)

// pair is a certificate with its private key.
type pair struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newCA makes an authority and returns it as the data of its Secret.
func newCA(opts Options) (map[string][]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := caTemplate(opts)
	self := pair{certificate: template, key: key}
	raw, err := self.signRaw(template, key.Public())
	if err != nil {
		return nil, fmt.Errorf("make the CA: %w", err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the CA's key: %w", err)
	}
	return map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey}),
	}, nil
}

// caTemplate may sign leaves, and no further authority.
func caTemplate(opts Options) *x509.Certificate {
	now := opts.Now()
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: caName},
		NotBefore:             now.Add(-Backdating),
		NotAfter:              now.Add(opts.CALifetime),
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
	raw, err := p.signRaw(template, key.Public())
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("read back the signed certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: parsed}, nil
}

// signRaw signs template, for public, with a serial of its own.
func (p pair) signRaw(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("pick a serial: %w", err)
	}
	// A serial is above zero, says RFC 5280.
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	return x509.CreateCertificate(rand.Reader, template, p.certificate, public, p.key)
}

// newKey returns a P-256 key: every TLS 1.3 client knows it, and it signs in tens of
// microseconds, in a handshake as in an issue.
func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return key, nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"time"
)

// keyPair is a certificate with its private key. The zero value has neither.
type keyPair struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newCA makes a CA, with the endorsement of its predecessor unless that is zero.
func newCA(predecessor keyPair, lifetime time.Duration, now time.Time) (keyPair, error) {
	key, err := newKey()
	if err != nil {
		return keyPair{}, err
	}
	template := caTemplate(lifetime, now)
	if predecessor.certificate != nil {
		endorsement, err := predecessor.endorse(key.Public())
		if err != nil {
			return keyPair{}, err
		}
		template.ExtraExtensions = []pkix.Extension{endorsement}
	}
	return keyPair{certificate: template, key: key}.sign(template, key)
}

// caTemplate allows the CA to sign leaves, and no other CA.
func caTemplate(lifetime time.Duration, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "apigw-guardian CA"},
		NotBefore:             now.Add(-backdating),
		NotAfter:              now.Add(lifetime),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
}

// newLeaf makes a serving certificate that is valid only while ca is.
func newLeaf(opts Options, ca keyPair, now time.Time) (*tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "apigw-guardian"},
		NotBefore:             slices.MaxFunc([]time.Time{now.Add(-backdating), ca.certificate.NotBefore}, time.Time.Compare),
		NotAfter:              slices.MinFunc([]time.Time{now.Add(opts.LeafLifetime), ca.certificate.NotAfter}, time.Time.Compare),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range opts.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	leaf, err := ca.sign(template, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.certificate.Raw}, PrivateKey: key, Leaf: leaf.certificate}, nil
}

// newKey returns a P-256 key: every TLS 1.3 client supports it, and a signature takes tens of microseconds.
func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// sign returns a certificate for the key, signed by p.
func (p keyPair) sign(template *x509.Certificate, key crypto.Signer) (keyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, p.certificate, key.Public(), p.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("sign the certificate of %s: %w", template.Subject, err)
	}
	certificate, err := x509.ParseCertificate(der)
	return keyPair{certificate: certificate, key: key}, err
}

// expired is true if there is no certificate.
func (p keyPair) expired(now time.Time) bool {
	return p.certificate == nil || now.After(p.certificate.NotAfter)
}

// invalidity says why the certificate, which is stored under that name, is not valid now; "" if it is.
func invalidity(name string, certificate *x509.Certificate, now time.Time) string {
	switch {
	case now.After(certificate.NotAfter):
		return name + " has expired on " + certificate.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(certificate.NotBefore):
		return name + " is not valid before " + certificate.NotBefore.UTC().Format(time.RFC3339) + " (check this machine's clock first)"
	}
	return ""
}

// encodeKey returns the key in PEM, as PKCS 8, which holds every kind of key.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPKCS8, Bytes: der}), nil
}

// parseKeyPair reads a chain and the private key of its first certificate. The reason, "" for none, never quotes the input.
func parseKeyPair(certName, keyName string, certPEM, keyPEM []byte) (chain []*x509.Certificate, key crypto.Signer, reason string) {
	if chain, reason = parseCertificates(certPEM); reason != "" {
		return nil, nil, certName + " is not a PEM certificate: " + reason
	}
	if key, reason = parseKey(keyPEM); reason != "" {
		return nil, nil, keyName + " is not a PEM private key: " + reason
	}
	public, ok := key.Public().(interface {
		Equal(other crypto.PublicKey) bool
	})
	if !ok || !public.Equal(chain[0].PublicKey) {
		return nil, nil, keyName + " is not the key of " + certName
	}
	return chain, key, ""
}

// endorsementOID returns the ID of the certificate extension with an endorsement: the signature of a CA over the public key of
// its successor. The number below the UUID arc is random; X.509 parsers accept 31 bits.
func endorsementOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1389206674} }

// endorsedText returns what an endorsement signs. Its first line tells it from a certificate, which the same key signs.
func endorsedText(successor crypto.PublicKey) ([]byte, error) {
	key, err := x509.MarshalPKIXPublicKey(successor)
	if err != nil {
		return nil, fmt.Errorf("encode the public key of the next CA: %w", err)
	}
	return append([]byte("apigw-guardian CA successor\n"), key...), nil
}

// endorse returns the extension for the certificate of a successor.
func (p keyPair) endorse(successor crypto.PublicKey) (pkix.Extension, error) {
	text, err := endorsedText(successor)
	if err != nil {
		return pkix.Extension{}, err
	}
	hash := crypto.SHA256
	if _, ok := p.key.Public().(ed25519.PublicKey); ok {
		hash = 0 // Ed25519 signs the text itself
	}
	signature, err := crypto.SignMessage(p.key, rand.Reader, text, hash)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("endorse the next CA: %w", err)
	}
	return pkix.Extension{Id: endorsementOID(), Value: signature}, nil
}

// endorses reports whether ca has endorsed the successor, which must be self-signed: a copy with other contents is not.
func endorses(ca, successor *x509.Certificate) bool {
	i := slices.IndexFunc(successor.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(endorsementOID()) })
	if i < 0 || successor.CheckSignatureFrom(successor) != nil {
		return false
	}
	text, err := endorsedText(successor.PublicKey)
	return err == nil && ca.CheckSignature(endorsementAlgorithm(ca), text, successor.Extensions[i].Value) == nil
}

func endorsementAlgorithm(ca *x509.Certificate) x509.SignatureAlgorithm {
	switch ca.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return x509.ECDSAWithSHA256
	case ed25519.PublicKey:
		return x509.PureEd25519
	}
	return x509.SHA256WithRSA
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// An authority is the certificate authority of one cluster. Each cluster has a different one, so that clients refuse a process of
// another testbed that answers on a port of this one.
type authority struct {
	dir         string // where it writes certificates and keys
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	addresses   []net.IP // in the certificates of servers
}

// A keyPair has the paths of a certificate and its key in PEM.
type keyPair struct{ certFile, keyFile string }

// certificateLife is longer than any testbed runs.
const certificateLife = 365 * 24 * time.Hour

// newAuthority creates an authority for servers on these addresses, with its certificate in dir/ca.crt.
func newAuthority(dir string, addresses ...net.IP) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create the key of the authority: %w", err)
	}
	template, err := certificateTemplate(pkix.Name{CommonName: "testbed-ca"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create the certificate of the authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	a := &authority{dir: dir, certificate: certificate, key: key, addresses: addresses}
	if err := writeKey(a.keyPair("ca").keyFile, key); err != nil {
		return nil, err
	}
	return a, writePEM(a.keyPair("ca").certFile, "CERTIFICATE", encoded)
}

// issue creates a certificate for the subject and writes it to files with this name. It is valid for a client, and for a server
// with the in-cluster names of the Kubernetes API server.
func (a *authority) issue(name string, subject pkix.Name) (keyPair, error) {
	pair := a.keyPair(name)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("create the key of %s: %w", name, err)
	}
	template, err := certificateTemplate(subject)
	if err != nil {
		return keyPair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = a.addresses
	template.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("create the certificate of %s: %w", name, err)
	}
	if err := writeKey(pair.keyFile, key); err != nil {
		return keyPair{}, err
	}
	return pair, writePEM(pair.certFile, "CERTIFICATE", encoded)
}

func (a *authority) keyPair(name string) keyPair {
	return keyPair{
		certFile: filepath.Join(a.dir, name+".crt"),
		keyFile:  filepath.Join(a.dir, name+".key"),
	}
}

func certificateTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("generate a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour), // the clock may be set back while the testbed runs
		NotAfter:     now.Add(certificateLife),
	}, nil
}

// newSigningKey writes a key for tokens of ServiceAccounts. It is an RSA key, like those of kubeadm and clouds. RSA signatures are
// deterministic: kube-controller-manager writes the same token again for the same Secret and ServiceAccount.
func newSigningKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("create the key of service account tokens: %w", err)
	}
	return writePEM(path, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode a private key: %w", err)
	}
	return writePEM(path, "EC PRIVATE KEY", encoded)
}

func writePEM(path, kind string, content []byte) error {
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		return fmt.Errorf("write a %s: %w", kind, err)
	}
	return nil
}

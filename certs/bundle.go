// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/util/cert"
)

func contains(bundle []*x509.Certificate, certificate *x509.Certificate) bool {
	return slices.ContainsFunc(bundle, certificate.Equal)
}

// except returns the bundle without the certificates that drop selects.
func except(bundle []*x509.Certificate, drop func(*x509.Certificate) bool) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(bundle), drop)
}

// union returns the certificates of all bundles in their order, without duplicates.
func union(bundles ...[]*x509.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, certificate := range slices.Concat(bundles...) {
		if !contains(all, certificate) {
			all = append(all, certificate)
		}
	}
	return all
}

func encodeBundle(bundle []*x509.Certificate) []byte {
	data, _ := cert.EncodeCertificates(bundle...) // a write to memory cannot fail
	return data
}

// decodeBundle returns the certificates in data. It skips blocks that cannot be parsed, as API servers do.
func decodeBundle(data []byte) []*x509.Certificate {
	var bundle []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			bundle = append(bundle, certificate)
		}
	}
	return bundle
}

func poolOf(bundle []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, certificate := range bundle {
		pool.AddCert(certificate)
	}
	return pool
}

// liveBundle is the caBundle of the live webhook configuration as this replica has read it. It is not safe for concurrent use.
type liveBundle struct {
	// registered is true if the webhook configuration exists: only then do API servers call the guard.
	registered   bool
	certificates []*x509.Certificate
	// since is when each of certificates appeared. A certificate that was absent in between starts again.
	since map[string]time.Time
}

// read reads the live webhook configuration. A nil function means that there is none.
func (l *liveBundle) read(ctx context.Context, registered Registered, now time.Time) error {
	if registered == nil {
		l.set(false, nil, now)
		return nil
	}
	bundle, exists, err := registered(ctx)
	if err != nil {
		return fmt.Errorf("read the webhook configuration: %w", err)
	}
	l.set(exists, decodeBundle(bundle), now)
	return nil
}

func (l *liveBundle) set(registered bool, bundle []*x509.Certificate, now time.Time) {
	since := make(map[string]time.Time, len(bundle))
	for _, certificate := range bundle {
		first, found := l.since[string(certificate.Raw)]
		if !found {
			first = now
		}
		since[string(certificate.Raw)] = first
	}
	l.registered, l.certificates, l.since = registered, union(bundle), since
}

// holdsFor reports whether the webhook configuration has held the certificate for that long; false for a nil certificate.
func (l *liveBundle) holdsFor(certificate *x509.Certificate, duration time.Duration, now time.Time) bool {
	if certificate == nil {
		return false
	}
	since, found := l.since[string(certificate.Raw)]
	return found && now.Sub(since) >= duration
}

// propagated returns the certificates of bundle that the webhook configuration has held for that long: every API server trusts them.
func (l *liveBundle) propagated(bundle []*x509.Certificate, propagation time.Duration, now time.Time) []*x509.Certificate {
	return except(bundle, func(c *x509.Certificate) bool { return !l.holdsFor(c, propagation, now) })
}

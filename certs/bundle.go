// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"k8s.io/client-go/util/cert"
)

func contains(bundle []*x509.Certificate, certificate *x509.Certificate) bool {
	return slices.ContainsFunc(bundle, certificate.Equal)
}

// union keeps the order, and drops what is there twice.
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
	data, _ := cert.EncodeCertificates(bundle...) // it writes to memory, which cannot fail
	return data
}

// decodeBundle reads the certificates that there are. A bundle of the registration may have been edited by anybody: what
// cannot be read in it is nothing that an API server trusts.
func decodeBundle(data []byte) []*x509.Certificate {
	var bundle []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			return bundle
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			bundle = append(bundle, certificate)
		}
	}
}

func poolOf(bundle []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, certificate := range bundle {
		pool.AddCert(certificate)
	}
	return pool
}

// sightings are what a replica has seen in the bundle of the live registration. The zero value has seen none. It is not safe
// for concurrent use.
type sightings struct {
	// registered says that there is a registration, so that an API server may call the guard.
	registered bool
	// bundle is what the registration shows now.
	bundle []*x509.Certificate
	// since is when each certificate that is in the bundle now was first seen there, without a break since then.
	since map[string]time.Time
}

// note takes in what the registration shows now; registered is false where there is none.
func (s *sightings) note(registered bool, bundle []*x509.Certificate, now time.Time) {
	since := make(map[string]time.Time, len(bundle))
	for _, certificate := range bundle {
		first, seen := s.since[string(certificate.Raw)]
		if !seen {
			first = now
		}
		since[string(certificate.Raw)] = first
	}
	s.registered, s.bundle, s.since = registered, union(bundle), since
}

// shownSince is zero while the registration does not show the certificate; nil is a certificate that it does not show.
func (s *sightings) shownSince(certificate *x509.Certificate) time.Time {
	if certificate == nil {
		return time.Time{}
	}
	return s.since[string(certificate.Raw)]
}

func (s *sightings) shows(certificate *x509.Certificate) bool {
	return !s.shownSince(certificate).IsZero()
}

// settled returns those of the bundle's certificates that every API server has been able to see for that long.
func (s *sightings) settled(bundle []*x509.Certificate, now time.Time, propagation time.Duration) []*x509.Certificate {
	var settled []*x509.Certificate
	for _, certificate := range bundle {
		if since := s.shownSince(certificate); !since.IsZero() && now.Sub(since) >= propagation {
			settled = append(settled, certificate)
		}
	}
	return settled
}

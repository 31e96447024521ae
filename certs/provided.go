// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// provided is a serving certificate with the CAs that were provided with it.
type provided struct {
	certificate   *tls.Certificate
	intermediates []*x509.Certificate
	cas           []*x509.Certificate
}

// parseProvided reads the files. The reason says why the guard cannot serve the certificate; "" if it can.
func parseProvided(files contents, host string, now time.Time) (p provided, reason string) {
	chain, key, reason := parseKeyPair(certFile, keyFile, []byte(files[0]), []byte(files[1]))
	if reason != "" {
		return provided{}, reason
	}
	cas, reason := parseCertificates([]byte(files[2]))
	if reason != "" {
		return provided{}, caFile + " is not a list of PEM certificates: " + reason
	}
	certificate := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	p = provided{certificate: certificate, intermediates: chain[1:], cas: cas}
	return p, p.defect(host, now)
}

// defect says why the guard cannot serve p; "" if it can.
func (p provided) defect(host string, now time.Time) string {
	leaf := p.certificate.Leaf
	if reason := invalidity(certFile, leaf, now); reason != "" {
		return reason
	}
	if err := leaf.VerifyHostname(host); err != nil {
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("%s is not for %s (it is for %v)", certFile, host, names)
	}
	if p.rootIn(p.cas, now) == nil {
		return caFile + " does not hold the CA that signed " + certFile + " for serving"
	}
	return ""
}

// rootIn returns the CA by which an API server that trusts these CAs accepts p; nil if the API server refuses p.
func (p provided) rootIn(cas []*x509.Certificate, now time.Time) *x509.Certificate {
	chains, err := p.certificate.Leaf.Verify(x509.VerifyOptions{
		Roots: poolOf(cas), Intermediates: poolOf(p.intermediates), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil
	}
	return chains[0][len(chains[0])-1]
}

func (p provided) expired(now time.Time) bool { return now.After(p.certificate.Leaf.NotAfter) }

// providedSet is the provided certificates that a replica knows.
type providedSet struct {
	current provided
	// candidate becomes current once API servers accept it; nil if there is none.
	candidate *provided
	// retired were current, or candidates. Replicas whose files are older may still serve them.
	retired []provided
}

func (s providedSet) newest() provided {
	if s.candidate != nil {
		return *s.candidate
	}
	return s.current
}

// bundle returns the CAs that API servers must trust, newest first.
func (s providedSet) bundle() []*x509.Certificate {
	bundle := union(s.newest().cas, s.current.cas)
	for _, p := range s.retired {
		bundle = union(bundle, p.cas)
	}
	return bundle
}

// add makes p the candidate, and retires the one before it.
func (s providedSet) add(p provided) providedSet {
	if s.candidate != nil {
		s.retired = append([]provided{*s.candidate}, s.retired...)
	}
	s.candidate = &p
	return s
}

// next returns the set after the candidate has become current, if it may, and without retired certificates that have expired. A
// candidate may if its CA has propagated, if there is no webhook configuration, or if the current certificate has expired.
func (s providedSet) next(live *liveBundle, now time.Time) providedSet {
	if c := s.candidate; c != nil {
		accepted := !live.registered || c.rootIn(live.propagated(c.cas, filesPropagation, now), now) != nil
		if accepted || s.current.expired(now) {
			s.retired = append([]provided{s.current}, s.retired...)
			s.current, s.candidate = *c, nil
		}
	}
	s.retired = slices.DeleteFunc(slices.Clone(s.retired), func(p provided) bool { return p.expired(now) })
	return s
}

// lateness says that the newest certificate should have been renewed; "" if it is not late. cert-manager renews after two thirds.
func (s providedSet) lateness(now time.Time) string {
	leaf := s.newest().certificate.Leaf
	if leaf.NotAfter.Sub(now) > leaf.NotAfter.Sub(leaf.NotBefore)/6 {
		return ""
	}
	return fmt.Sprintf("%s expires on %s and has not been renewed", certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
}

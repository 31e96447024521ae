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

// offer is one provided certificate, and the authorities that were provided with it.
type offer struct {
	certificate   *tls.Certificate
	intermediates []*x509.Certificate
	authorities   []*x509.Certificate
}

// defect says why the offer cannot be served, or nothing.
func (o offer) defect(host string, now time.Time) string {
	leaf := o.certificate.Leaf
	if reason := untimely(certFile, leaf, now); reason != "" {
		return reason
	}
	if err := leaf.VerifyHostname(host); err != nil {
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("%s is not for %s (it is for %v)", certFile, host, names)
	}
	if !o.verifies(o.authorities, now) {
		return authorityFile + " does not hold the authority that signed " + certFile + " for serving"
	}
	return ""
}

// verifies says that an API server which trusts these authorities accepts the certificate.
func (o offer) verifies(authorities []*x509.Certificate, now time.Time) bool {
	return len(o.chain(authorities, now)) > 0
}

func (o offer) chain(authorities []*x509.Certificate, now time.Time) []*x509.Certificate {
	chains, err := o.certificate.Leaf.Verify(x509.VerifyOptions{
		Roots: poolOf(authorities), Intermediates: poolOf(o.intermediates), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil
	}
	return chains[0]
}

// authority is what the certificate rests on; nil where it is not valid now.
func (o offer) authority(now time.Time) *x509.Certificate {
	if chain := o.chain(o.authorities, now); len(chain) > 0 {
		return chain[len(chain)-1]
	}
	return nil
}

func (o offer) expired(now time.Time) bool { return now.After(o.certificate.Leaf.NotAfter) }

// offers are the certificates that a replica knows.
type offers struct {
	serving offer
	// awaited is served once API servers accept it; nil for none.
	awaited *offer
	// former were served, and may still be so by replicas whose files are older.
	former []offer
}

func (o offers) waiting() bool { return o.awaited != nil }

// bundle is what API servers must trust, newest first.
func (o offers) bundle() []*x509.Certificate {
	var bundle []*x509.Certificate
	if o.awaited != nil {
		bundle = o.awaited.authorities
	}
	bundle = union(bundle, o.serving.authorities)
	for _, f := range o.former {
		bundle = union(bundle, f.authorities)
	}
	return bundle
}

// add takes in what was provided last. What still waited is not waited for any more, but other replicas may have it.
func (o offers) add(made offer) offers {
	if o.awaited != nil {
		o.former = append([]offer{*o.awaited}, o.former...)
	}
	o.awaited = &made
	return o
}

// next serves the awaited certificate once every API server has been able to learn of its authority, nobody calls, or the one
// that is served has expired; and it forgets what has expired.
func (o offers) next(live *sightings, now time.Time) offers {
	if a := o.awaited; a != nil {
		accepted := !live.registered || a.verifies(live.settled(a.authorities, now, filesPropagation), now)
		if accepted || o.serving.expired(now) {
			o.former = append([]offer{o.serving}, o.former...)
			o.serving, o.awaited = *a, nil
		}
	}
	o.former = slices.DeleteFunc(slices.Clone(o.former), func(f offer) bool { return f.expired(now) })
	return o
}

// lateness says that the newest certificate should have been renewed, or nothing. Whoever renews does so with a third of its
// life to go, as cert-manager does, or somewhat later.
func (o offers) lateness(now time.Time) string {
	newest := o.serving
	if o.awaited != nil {
		newest = *o.awaited
	}
	leaf := newest.certificate.Leaf
	if leaf.NotAfter.Sub(now) > leaf.NotAfter.Sub(leaf.NotBefore)/6 {
		return ""
	}
	return fmt.Sprintf("%s ends on %s and has not been renewed", certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
}

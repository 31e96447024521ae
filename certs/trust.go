// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"
)

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

// proves reports whether a proven CA proves a candidate: one of them has endorsed the other. A candidate that endorses must be
// self-signed: it could be a copy with other contents.
func proves(proven, candidate *x509.Certificate) bool {
	return endorses(proven, candidate) || endorses(candidate, proven) && candidate.CheckSignatureFrom(candidate) == nil
}

// provenBy returns the candidates that are anchors, or that a chain of endorsements, in either direction, links to an anchor.
// Only a guard can make an endorsement. The others are unknown CAs.
func provenBy(anchors, candidates []*x509.Certificate) []*x509.Certificate {
	proven := slices.Clone(anchors)
	for grown := true; grown; {
		grown = false
		for _, c := range candidates {
			if !contains(proven, c) && slices.ContainsFunc(proven, func(p *x509.Certificate) bool { return proves(p, c) }) {
				proven, grown = append(proven, c), true
			}
		}
	}
	return except(candidates, func(c *x509.Certificate) bool { return !contains(proven, c) })
}

// provenBy returns s without its unknown CAs. It returns false, and an empty set, if the current CA is unknown.
func (s caSet) provenBy(anchors []*x509.Certificate) (caSet, bool) {
	proven := provenBy(anchors, s.bundle())
	isUnknown := func(c *x509.Certificate) bool { return !contains(proven, c) }
	if s.current.certificate == nil || isUnknown(s.current.certificate) {
		return caSet{}, false
	}
	if s.next.certificate != nil && isUnknown(s.next.certificate) {
		s.next = keyPair{}
	}
	s.previous = except(s.previous, isUnknown)
	return s, true
}

// trust is what a replica knows when it reads the Secret. Another client may have written the Secret.
type trust struct {
	held caSet
	// made is the CA that this process made last; nil if it made none.
	made *x509.Certificate
	// anchored is true after the live webhook configuration has held the CA that signs.
	anchored bool
	live     *liveBundle
	pace     pace
}

// anchors returns the certificates that need no proof. A replica that serves trusts the CAs that it holds and those that have
// propagated: the leader reverts a change of the webhook configuration before it propagates. A replica that cannot serve, because
// it has just started or its CA has expired, trusts the webhook configuration.
func (t trust) anchors(now time.Time) []*x509.Certificate {
	live := t.live.certificates
	switch {
	case !t.live.registered:
		return t.held.bundle()
	case !t.anchored && t.made != nil:
		return append(slices.Clone(live), t.made)
	case !t.anchored:
		return live
	case t.held.signer(now).expired(now):
		return union(t.held.bundle(), live)
	}
	return union(t.held.bundle(), t.live.propagated(live, t.pace.propagation, now))
}

// merge returns the CAs to hold from now on, given the CAs in the Secret. If the Secret's current CA is unknown, proven is false.
func (t trust) merge(stored caSet, anchors []*x509.Certificate, now time.Time) (merged caSet, proven bool) {
	merged, proven = stored.provenBy(anchors)
	if !proven {
		merged = t.held
	}
	if t.anchored {
		merged = merged.keeping(t.held, t.pace.isOver(now))
	}
	// Another replica may serve under a CA that a guard made and that only the webhook configuration still holds.
	live := provenBy(merged.bundle(), t.live.certificates)
	return merged.keeping(caSet{previous: live}, t.pace.isOver(now)), proven
}

// keeping returns s with the CAs of held that it lacks and that are not over. A CA leaves the bundle only after its end: if
// another client removes it from the Secret, a replica may still serve under it.
func (s caSet) keeping(held caSet, isOver func(*x509.Certificate) bool) caSet {
	next := held.next.certificate
	if s.next.certificate == nil && next != nil && !isOver(next) && !contains(s.bundle(), next) &&
		s.current.certificate.Equal(held.current.certificate) {
		s.next = held.next
	}
	lost := except(held.bundle(), func(c *x509.Certificate) bool { return contains(s.bundle(), c) || isOver(c) })
	s.previous = union(s.previous, lost)
	return s
}

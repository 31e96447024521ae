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

// endorsementOID returns the name of the extension of a CA certificate that holds the endorsement by the CA before it: a signature over
// endorsedText. The number under the UUID arc is drawn by chance; X.509 parsers accept 31 bits.
func endorsementOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1389206674} }

// endorsedText is what an endorsement signs. Its first line keeps the signature from being taken for one over a
// certificate, which the same key makes too.
func endorsedText(successor crypto.PublicKey) ([]byte, error) {
	key, err := x509.MarshalPKIXPublicKey(successor)
	if err != nil {
		return nil, fmt.Errorf("encode the public key of the next CA: %w", err)
	}
	return append([]byte("apigw-guardian CA successor\n"), key...), nil
}

// endorse returns the extension by which p names a successor. The successor's own signature over its certificate binds the
// rest of the certificate to the key.
func (p pair) endorse(successor crypto.PublicKey) (pkix.Extension, error) {
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

// endorses reports whether the holder of ca's key has named the successor. Both keys sign: ca's the successor's key, and the
// successor's its own certificate, so that a copy with other contents is not endorsed.
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

// proves reports whether a proven CA proves a candidate: it has endorsed the candidate, or the candidate has endorsed it. In
// the second case the candidate must be self-signed: it could be a copy with other contents otherwise.
func proves(proven, candidate *x509.Certificate) bool {
	return endorses(proven, candidate) || endorses(candidate, proven) && candidate.CheckSignatureFrom(candidate) == nil
}

// vouched returns the candidates that the anchors prove, in their order: the anchors themselves, and the CAs that a chain of
// endorsements links to one of them, in either direction. Only a guard can make either.
func vouched(anchors, candidates []*x509.Certificate) []*x509.Certificate {
	proven := slices.Clone(anchors)
	isProven := func(c *x509.Certificate) bool {
		return contains(proven, c) || slices.ContainsFunc(proven, func(p *x509.Certificate) bool { return proves(p, c) })
	}
	for grown := true; grown; {
		grown = false
		for _, c := range candidates {
			if !contains(proven, c) && isProven(c) {
				proven, grown = append(proven, c), true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(candidates), func(c *x509.Certificate) bool { return !contains(proven, c) })
}

// vouchedBy returns what the anchors prove of a. The result is false, and a is of no use, where they do not prove the signer.
func (a authorities) vouchedBy(anchors []*x509.Certificate) (authorities, bool) {
	proven := vouched(anchors, a.bundle())
	if a.signer.certificate == nil || !contains(proven, a.signer.certificate) {
		return authorities{}, false
	}
	if a.upcoming.certificate != nil && !contains(proven, a.upcoming.certificate) {
		a.upcoming = pair{}
	}
	a.previous = slices.DeleteFunc(slices.Clone(a.previous), func(c *x509.Certificate) bool { return !contains(proven, c) })
	return a, true
}

// custody is what a replica knows when it reads the Secret. Anybody may have written the Secret; custody decides what of it a
// guard has made.
type custody struct {
	held authorities
	// own is the CA that this process has made last; nil for none.
	own *x509.Certificate
	// anchored is true once the live registration has shown the CA that held signs with.
	anchored bool
	live     *sightings
	pace     pace
}

// anchors returns the certificates that need no proof. A replica that serves relies on what it holds, and on what the
// registration has shown without a break: a change of the registration that the leader reverts does not count. A replica
// that has nothing to lose, because it has just started or its CA has expired, relies on the registration.
func (c custody) anchors(now time.Time) []*x509.Certificate {
	switch {
	case !c.live.registered:
		return c.held.bundle()
	case !c.anchored && c.own != nil:
		return append(slices.Clone(c.live.bundle), c.own)
	case !c.anchored:
		return c.live.bundle
	case c.held.signing(now).expired(now):
		return union(c.held.bundle(), c.live.bundle)
	}
	return union(c.held.bundle(), c.live.settled(c.live.bundle, now, c.pace.propagation))
}

// succeed returns what the replica holds from now on, given what the Secret holds. The result is false where the anchors do
// not prove the signer of the Secret: the replica then keeps what it holds.
func (c custody) succeed(stored authorities, now time.Time) (authorities, bool) {
	next, proven := stored.vouchedBy(c.anchors(now))
	if !proven {
		next = c.held
	}
	if c.anchored {
		next = next.keeping(c.held, c.pace.over(now))
	}
	// What the registration shows and a guard has made may be served by a replica that this one knows nothing of.
	shown := vouched(next.bundle(), c.live.bundle)
	return next.keeping(authorities{previous: shown}, c.pace.over(now)), proven
}

// isProven reports whether the anchors prove what the replica holds.
func (c custody) isProven(now time.Time) bool {
	_, proven := c.held.vouchedBy(c.anchors(now))
	return proven
}

// keeping returns a with what it lacks of held. Only its end takes a CA out of the bundle, not a write to the Secret: a
// replica may still serve what another client has removed there.
func (a authorities) keeping(held authorities, over func(*x509.Certificate) bool) authorities {
	next := held.upcoming.certificate
	if a.upcoming.certificate == nil && next != nil && !over(next) && !a.covers(next) && a.signer.certificate.Equal(held.signer.certificate) {
		a.upcoming = held.upcoming
	}
	var lost []*x509.Certificate
	for _, certificate := range held.bundle() {
		if !a.covers(certificate) && !over(certificate) {
			lost = append(lost, certificate)
		}
	}
	a.previous = union(a.previous, lost)
	return a
}

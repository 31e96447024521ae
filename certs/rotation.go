// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"slices"
	"time"
)

// caSet is the CAs that the Secret holds. A CA is next, then current, then previous. The zero value holds none.
type caSet struct {
	// current signs the leaf of every replica.
	current keyPair
	// next is in the bundle and signs nothing yet; zero if there is none.
	next keyPair
	// previous have signed leaves that replicas may still serve. Their keys are deleted.
	previous []*x509.Certificate
}

// bundle returns the certificates that API servers must trust, newest first.
func (s caSet) bundle() []*x509.Certificate {
	var bundle []*x509.Certificate
	for _, p := range []keyPair{s.next, s.current} {
		if p.certificate != nil {
			bundle = append(bundle, p.certificate)
		}
	}
	return append(bundle, s.previous...)
}

func (s caSet) equal(t caSet) bool {
	return slices.EqualFunc(s.bundle(), t.bundle(), (*x509.Certificate).Equal) &&
		s.current.certificate.Equal(t.current.certificate) && s.next.certificate.Equal(t.next.certificate)
}

// signer returns the CA that signs leaves: the current one. After its end the next CA signs, even if it has not propagated.
func (s caSet) signer(now time.Time) keyPair {
	if s.current.expired(now) && s.next.certificate != nil && invalidity(nextCertKey, s.next.certificate, now) == "" {
		return s.next
	}
	return s.current
}

// step is a change of a caSet, which the leader makes.
type step string

// The steps, in the order of a rotation.
const (
	keep    step = ""
	prepare step = "prepare" // a new CA becomes next
	promote step = "promote" // the next CA becomes current
	remove  step = "remove"  // expired previous CAs leave
	replace step = "replace" // the current CA has expired and there is no next: a new CA becomes current at once
)

// pace is the durations of a rotation.
type pace struct {
	// lifetime is that of a new CA. A CA is due for rotation after two thirds of it.
	lifetime time.Duration
	// propagation is how long the webhook configuration holds the next CA before it signs.
	propagation time.Duration
	// margin is how long an expired CA stays in the bundle, for replicas and API servers whose clocks are late.
	margin time.Duration
	// poll is the pause between two rounds of a replica.
	poll time.Duration
}

func paceOf(lifetime time.Duration) pace {
	return pace{
		lifetime:    lifetime,
		propagation: min(maxPropagation, lifetime/12),
		margin:      min(backdating, lifetime/4),
		poll:        min(max(lifetime/60, time.Second), time.Minute),
	}
}

// due returns when a CA needs a successor: with a third of a lifetime left, or after two thirds, whichever is first. The two
// differ for a CA that was made with another lifetime.
func (p pace) due(certificate *x509.Certificate) time.Time {
	byEnd := certificate.NotAfter.Add(-p.lifetime / 3)
	byAge := certificate.NotBefore.Add(backdating + p.lifetime/3*2)
	return slices.MinFunc([]time.Time{byEnd, byAge}, time.Time.Compare)
}

// step returns the next step. propagated says whether the next CA has propagated, as far as this leader has seen it itself.
//
// Two rules make a rotation safe, without knowledge of the other replicas. A CA signs only after every API server trusts it. And
// a CA stays in the bundle until it has expired: no leaf outlives its CA, so no replica can serve one then.
func (p pace) step(s caSet, propagated bool, now time.Time) step {
	hasNext := !s.next.expired(now)
	switch {
	case s.current.certificate == nil:
		return replace
	case hasNext && (propagated || s.current.expired(now)):
		return promote
	case s.current.expired(now):
		return replace
	case !hasNext && !now.Before(p.due(s.current.certificate)):
		return prepare
	case slices.ContainsFunc(s.previous, p.isOver(now)):
		return remove
	}
	return keep
}

// take returns the set after a step. Only prepare and replace use fresh.
func (p pace) take(s caSet, step step, fresh keyPair, now time.Time) caSet {
	demoted := union(caSet{current: s.current, previous: s.previous}.bundle())
	switch step {
	case prepare:
		s.next = fresh
	case promote:
		s = caSet{current: s.next, previous: demoted}
	case replace:
		s = caSet{current: fresh, previous: demoted}
	case remove:
		s.previous = except(s.previous, p.isOver(now))
	case keep:
	}
	return s
}

// lateness is the problem that a CA should have been rotated; "" if it is not late.
func (p pace) lateness(s caSet, now time.Time) string {
	end := s.current.certificate.NotAfter
	if end.Sub(now) > p.lifetime/6 {
		return ""
	}
	return "the CA expires on " + end.UTC().Format(time.RFC3339) +
		" and has not been rotated: check that a replica leads, and that the webhook configuration holds the CAs of Secret " + SecretName
}

// isOver selects the certificates that expired longer ago than the margin.
func (p pace) isOver(now time.Time) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool { return now.After(c.NotAfter.Add(p.margin)) }
}

// proves reports whether a proven CA proves a candidate: one of them has endorsed the other. A candidate that endorses must be
// self-signed: it could be a copy with other contents.
func proves(proven, candidate *x509.Certificate) bool {
	return endorses(proven, candidate) || endorses(candidate, proven) && candidate.CheckSignatureFrom(candidate) == nil
}

// provenBy returns the candidates that are anchors or that endorsements, in either direction, link to one. Others are unknown CAs.
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"slices"
	"time"
)

// authorities are what the Secret holds. An authority comes in as upcoming, becomes the signer, and leaves as one of
// previous; all of them together are the bundle. The zero value holds none.
type authorities struct {
	// signer signs the leaves of every replica.
	signer pair
	// upcoming is in the bundle and signs nothing yet; zero for none.
	upcoming pair
	// previous have signed leaves that may still be served. Their keys are gone.
	previous []*x509.Certificate
}

// bundle returns the certificates that an API server must trust, newest first.
func (a authorities) bundle() []*x509.Certificate {
	var bundle []*x509.Certificate
	for _, p := range []pair{a.upcoming, a.signer} {
		if p.certificate != nil {
			bundle = append(bundle, p.certificate)
		}
	}
	return append(bundle, a.previous...)
}

func (a authorities) covers(certificate *x509.Certificate) bool {
	return certificate != nil && contains(a.bundle(), certificate)
}

func (a authorities) equal(b authorities) bool {
	return slices.EqualFunc(a.bundle(), b.bundle(), (*x509.Certificate).Equal) &&
		a.signer.certificate.Equal(b.signer.certificate) && a.upcoming.certificate.Equal(b.upcoming.certificate)
}

// signing returns who signs now. Once the signer has expired, the upcoming authority takes its place without having been
// seen: whatever the old one has signed is worth nothing any more.
func (a authorities) signing(now time.Time) pair {
	if a.signer.expired(now) && a.upcoming.certificate != nil && a.upcoming.untimely(now) == "" {
		return a.upcoming
	}
	return a.signer
}

// step is what the leader does to the authorities.
type step string

// The steps, in the order of a rotation.
const (
	keep    step = ""
	prepare step = "prepare" // a new authority comes in as the upcoming one
	promote step = "promote" // the upcoming one becomes the signer
	forget  step = "forget"  // previous ones that have expired leave
	replace step = "replace" // the signer has expired without a successor: a new one takes its place at once
)

// pace is how fast the steps follow each other.
type pace struct {
	// lifetime is that of a new authority. One is due for rotation after two thirds of it.
	lifetime time.Duration
	// propagation is how long every API server must have been able to learn of the upcoming authority.
	propagation time.Duration
	// margin is how long an expired authority stays in the bundle, for replicas and API servers whose clocks are late.
	margin time.Duration
}

func paceOf(lifetime time.Duration) pace {
	return pace{
		lifetime:    lifetime,
		propagation: min(maxPropagation, lifetime/12),
		margin:      min(Backdating, lifetime/4),
	}
}

// due is when an authority needs a successor: when a third of a lifetime is left, or two thirds are over, whichever comes
// first. They differ for one that was made with another lifetime.
func (p pace) due(certificate *x509.Certificate) time.Time {
	byEnd := certificate.NotAfter.Add(-p.lifetime / 3)
	byAge := certificate.NotBefore.Add(Backdating + p.lifetime/3*2)
	if byAge.Before(byEnd) {
		return byAge
	}
	return byEnd
}

// next decides the next step of the rotation. shownSince is since when the registration has shown the upcoming authority
// without a break, as this leader has seen it itself; zero while it does not.
//
// It is safe because of two rules. Nobody signs with an authority before every API server trusts it: promote waits for the
// registration, and then for as long as an API server may take to notice. And nobody forgets an authority whose leaves
// somebody may serve: a leaf never outlives its authority, so an expired authority has none. That needs no knowledge of the
// other replicas, however long one of them was asleep.
func (p pace) next(a authorities, now, shownSince time.Time) step {
	hasUpcoming := a.upcoming.certificate != nil && !a.upcoming.expired(now)
	shown := !shownSince.IsZero() && now.Sub(shownSince) >= p.propagation
	switch {
	case a.signer.certificate == nil:
		return replace
	case hasUpcoming && (shown || a.signer.expired(now)):
		return promote
	case a.signer.expired(now):
		return replace
	case !hasUpcoming && !now.Before(p.due(a.signer.certificate)):
		return prepare
	case slices.ContainsFunc(a.previous, p.over(now)):
		return forget
	}
	return keep
}

// lateness says that the signer should have been rotated, or nothing.
func (p pace) lateness(a authorities, now time.Time) string {
	end := a.signer.certificate.NotAfter
	if end.Sub(now) > p.lifetime/6 {
		return ""
	}
	return "the certificate authority ends on " + end.UTC().Format(time.RFC3339) +
		" and has not been rotated: is there a leader, and does the registration show what the Secret " + SecretName + " holds?"
}

// over tells the certificates that nobody needs any more.
func (p pace) over(now time.Time) func(*x509.Certificate) bool {
	return func(c *x509.Certificate) bool { return now.After(c.NotAfter.Add(p.margin)) }
}

// needsNew says that the step brings in a new authority.
func (s step) needsNew() bool { return s == prepare || s == replace }

// take returns the authorities after a step. fresh is used by those steps that need a new one.
func (p pace) take(a authorities, s step, fresh pair, now time.Time) authorities {
	switch s {
	case prepare:
		a.upcoming = fresh
	case promote:
		a.previous = retired(a)
		a.signer, a.upcoming = a.upcoming, pair{}
	case replace:
		a.previous = retired(a)
		a.signer, a.upcoming = fresh, pair{}
	case forget:
		a.previous = slices.DeleteFunc(slices.Clone(a.previous), p.over(now))
	case keep:
	}
	return a
}

// retired are the previous authorities once the signer is one of them.
func retired(a authorities) []*x509.Certificate {
	if a.signer.certificate == nil {
		return a.previous
	}
	return union([]*x509.Certificate{a.signer.certificate}, a.previous)
}

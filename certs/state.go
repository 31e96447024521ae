// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// What [State.Ready] answers with; errors.Is finds them.
var (
	// ErrNoCertificate says that there is no certificate that an API server would accept: every handshake fails.
	ErrNoCertificate = errors.New("no valid serving certificate")
	// ErrNotTrustedYet says that the registration does not show the authority yet: API servers would refuse the certificate.
	ErrNotTrustedYet = errors.New("the registration does not show the certificate authority yet")
)

// State is what this replica serves with.
type State struct {
	// Leaf is the serving certificate; nil where there is none.
	Leaf *x509.Certificate
	// Authority is what it was signed by, as far as known; nil where there is none.
	Authority *x509.Certificate
	// Problem says what is wrong with the certificates that were provided last, or with the Secret: text for people that
	// names what to do, and never holds key material. The guard may serve well with those that it had before. "" for nothing.
	Problem string
	// Trusted is true once the registration has shown the authority, or there was no registration, since the start. It
	// stays true.
	Trusted bool
	// Tampered counts the looks at the Secret that found a certificate authority which no guard has made. It was not used.
	Tampered int64
	// Replaced counts the authorities that this replica has replaced at once, because they had expired or were not proven.
	Replaced int64
}

// Ready says whether API servers get on with this replica: nil, ErrNotTrustedYet or ErrNoCertificate.
//
// It fails only where handshakes fail anyway, so that taking the replica out of its Service makes nothing worse. A
// certificate that is about to end leaves it ready: all replicas would leave at once, and that would be the outage.
func (s State) Ready(now time.Time) error {
	switch {
	case s.Leaf == nil:
		return ErrNoCertificate
	case now.After(s.Leaf.NotAfter):
		return fmt.Errorf("%w: it has expired on %s", ErrNoCertificate, s.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case !s.Trusted:
		return ErrNotTrustedYet
	}
	return nil
}

// health is what a replica says of itself.
type health struct {
	trusted atomic.Bool
	problem atomic.Pointer[string]
}

func (h *health) complaint() string {
	if problem := h.problem.Load(); problem != nil {
		return *problem
	}
	return ""
}

// report sets the problem, or takes it back with "". It logs that once, and tells whether it is new.
func (h *health) report(log *slog.Logger, problem string) (changed bool) {
	changed = h.complaint() != problem
	h.problem.Store(&problem)
	switch {
	case changed && problem != "":
		log.Error("certificates are not as they should be", slog.String("reason", problem))
	case changed:
		log.Info("certificates are as they should be again")
	}
	return changed
}

// observe notes what the live registration shows.
func (s *sightings) observe(ctx context.Context, registered Registered, now time.Time) error {
	if registered == nil {
		s.note(false, nil, now)
		return nil
	}
	bundle, exists, err := registered(ctx)
	if err != nil {
		return fmt.Errorf("read the registration: %w", err)
	}
	s.note(exists, decodeBundle(bundle), now)
	return nil
}

// State tells what this replica serves with now.
func (a *Authority) State() State {
	state := State{
		Problem: a.health.complaint(), Trusted: a.health.trusted.Load(), Tampered: a.tampered.Load(), Replaced: a.replaced.Load(),
	}
	certificate, err := a.GetCertificate(nil)
	if err != nil {
		if state.Problem == "" {
			state.Problem = err.Error()
		}
		return state
	}
	state.Leaf, state.Authority = certificate.Leaf, a.leaf.Load().signer
	return state
}

// gatePropagation is how long a replica waits at most for API servers to learn of a new authority that does not follow from
// the one before. API servers watch registrations, and notice within a second.
const gatePropagation = 15 * time.Second

// look opens the gate of readiness once API servers would accept the leaf.
func (a *Authority) look() {
	now := a.opts.Now()
	signing := a.held.Load().signing(now).certificate
	since := a.live.shownSince(signing)
	shown := !since.IsZero()
	a.anchored = a.anchored || shown
	if shown && now.Sub(since) >= a.pace.propagation {
		a.notice = ""
	}
	if a.live.registered && (!shown || a.isChange(signing) && now.Sub(since) < min(a.pace.propagation, gatePropagation)) {
		return
	}
	a.health.trusted.Store(true)
}

// isChange reports whether the registration also shows authorities that the one that signs is not related to: replicas may serve
// under them that every API server accepts.
func (a *Authority) isChange(signing *x509.Certificate) bool {
	return len(vouched([]*x509.Certificate{signing}, a.live.bundle)) < len(a.live.bundle)
}

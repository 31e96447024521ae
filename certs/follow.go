// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// roundTimeout bounds a look at the cluster: an API server that hangs must not keep the next look, or the keeper of the
// registration, waiting for ever.
const roundTimeout = 10 * time.Second

// Follow keeps this replica up to date with the Secret and the registration until ctx ends: every replica runs it. While
// Lead runs too, it also takes the steps of the rotation. Errors of the API server are logged and tried again; serving goes on
// from memory.
func (a *Authority) Follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.pause()):
		case <-a.wake:
		}
		if err := a.Round(ctx); err != nil && ctx.Err() == nil {
			a.opts.Log.Warn("cannot look after the certificate authority", slog.Any("err", err))
		}
	}
}

// Lead makes this replica the one that rotates until ctx ends. Only one replica may: run it where a leader is elected. Two that
// overlap for a moment do no harm, as the Secret is written under its resourceVersion.
func (a *Authority) Lead(ctx context.Context) {
	a.leading.Store(true)
	defer a.leading.Store(false)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	<-ctx.Done()
}

func (a *Authority) pause() time.Duration {
	if !a.health.trusted.Load() {
		return gatePoll
	}
	return a.steadyPause()
}

func (a *Authority) steadyPause() time.Duration {
	return min(max(a.opts.CALifetime/60, minPoll), maxPoll)
}

// Round looks once at the Secret and the registration, and takes at most one step of the rotation where this replica leads.
// Follow calls it in time. The error is the API server's.
func (a *Authority) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	a.rounds.Lock()
	defer a.rounds.Unlock()
	stored, problem, err := a.reload(ctx)
	if err != nil {
		return err
	}
	if a.leading.Load() {
		err = a.lead(ctx, stored)
	}
	a.look()
	if apierrors.IsConflict(err) { // another client was quicker, and the next look shows which
		err = nil
	}
	if err != nil && problem == "" {
		problem = "the Secret " + SecretName + " cannot be written, and its certificate authority cannot be rotated: " + err.Error()
	}
	a.complain(cmp.Or(problem, a.notice, a.pace.lateness(*a.held.Load(), a.opts.Now())))
	return err
}

// Refresh reads the Secret and returns the bundle that a registration must have now. A leader that has just been elected may
// know less than the one before it has written: a registration that is made of memory could take away what others serve
// with. A Secret that is gone, or of no use, is no error: this replica's own authorities stand until the leader puts it back.
func (a *Authority) Refresh(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	a.rounds.Lock()
	defer a.rounds.Unlock()
	_, problem, err := a.reload(ctx)
	if err != nil {
		return nil, err
	}
	a.look()
	a.complain(cmp.Or(problem, a.notice, a.pace.lateness(*a.held.Load(), a.opts.Now())))
	return a.Bundle(), nil
}

// reload takes over what the Secret holds, as far as a guard has made it. It returns the Secret as it is, and what is wrong
// with it.
func (a *Authority) reload(ctx context.Context) (stored record, problem string, err error) {
	// In this order: what the registration shows was in the Secret before.
	if err := a.live.observe(ctx, a.opts.Registered, a.opts.Now()); err != nil {
		return record{}, "", err
	}
	stored, err = a.store.load(ctx)
	switch {
	case apierrors.IsNotFound(err):
		problem = "the Secret with the certificate authority is gone: the leader puts it back"
	case errors.Is(err, ErrUnusableCA):
		problem = err.Error()
	case err != nil:
		return stored, "", err
	}
	return stored, problem + a.succeed(stored, problem == ""), nil
}

// succeed goes on with what custody says. It returns what is wrong with a Secret that could be read.
func (a *Authority) succeed(stored record, readable bool) (problem string) {
	now := a.opts.Now()
	custody := custody{held: *a.held.Load(), own: a.own, anchored: a.anchored, live: &a.live, pace: a.pace}
	next, proven := custody.succeed(stored.authorities, now)
	// A registration that shows nothing, because another client has emptied it, says nothing against what this replica holds.
	if !proven && len(a.live.bundle) > 0 && !a.anchored && !custody.isProven(now) {
		if err := a.startOver(errUnproven, now); err != nil {
			return err.Error()
		}
		next = *a.held.Load()
	}
	a.hold(next)
	if l := a.lingering.Load(); l != nil && (!now.Before(l.until) || !next.signer.certificate.Equal(a.own)) {
		a.lingering.Store(nil)
		a.changed()
	}
	if readable && len(vouched(custody.anchors(now), stored.bundle())) < len(stored.bundle()) {
		a.tampered.Add(1)
		return "the Secret " + SecretName + " holds a certificate authority that no guard has made: it is not used, and the leader " +
			"puts the Secret back. Who may patch this Secret?"
	}
	return ""
}

func (a *Authority) complain(problem string) {
	if a.health.report(a.opts.Log, problem) {
		a.changed()
	}
}

func (a *Authority) changed() {
	if a.opts.Changed != nil {
		a.opts.Changed()
	}
}

// hold replaces what this replica signs with and publishes.
func (a *Authority) hold(next authorities) {
	before := a.held.Load()
	if before != nil && before.equal(next) {
		return
	}
	a.held.Store(&next)
	if before != nil {
		a.changed()
	}
}

// firstLook is a round that cannot fail.
func (a *Authority) firstLook(ctx context.Context) {
	if err := a.Round(ctx); err != nil {
		a.opts.Log.Warn("cannot look at the registration", slog.Any("err", err))
	}
}

// lead writes what the Secret must hold: it puts back what was lost or replaced, or takes the next step.
func (a *Authority) lead(ctx context.Context, stored record) error {
	held, now := *a.held.Load(), a.opts.Now()
	if !held.equal(stored.authorities) {
		a.opts.Log.Warn("certificate authority was deleted or changed, and is put back", slog.String("name", SecretName))
		return a.write(ctx, stored, held)
	}
	next := a.pace.next(held, now, a.live.shownSince(held.upcoming.certificate))
	if next == keep {
		return nil
	}
	a.opts.Log.Info("rotating the certificate authority", slog.String("step", string(next)))
	return a.advance(ctx, stored, held, next)
}

// advance takes one step, and writes it. A new authority is endorsed by the one that signs, so that every replica that holds
// that one accepts it.
func (a *Authority) advance(ctx context.Context, stored record, from authorities, s step) error {
	now := a.opts.Now()
	var fresh pair
	if s.needsNew() {
		var err error
		if fresh, err = newSuccessor(from.signer, a.opts.CALifetime, now); err != nil {
			return err
		}
		a.own = fresh.certificate
	}
	if err := a.write(ctx, stored, a.pace.take(from, s, fresh, now)); err != nil {
		return err
	}
	if s == replace && from.signer.certificate != nil {
		a.replaced.Add(1)
		a.notice = "the certificate authority had expired on " + from.signer.certificate.NotAfter.UTC().Format(time.RFC3339) +
			" and was replaced: writes to reserved resources were refused meanwhile"
		a.opts.Log.Error("certificate authority has expired, and is replaced", slog.String("name", SecretName))
	}
	return nil
}

// write stores the authorities in the place of what was read, and holds them once they are stored.
func (a *Authority) write(ctx context.Context, stored record, next authorities) error {
	if err := a.store.save(ctx, stored, next); err != nil {
		return err
	}
	a.hold(next)
	return nil
}

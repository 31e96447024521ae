// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
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
	return min(max(a.opts.CALifetime/60, minPoll), maxPoll)
}

// Round looks once at the Secret and the registration, and takes at most one step of the rotation where this replica leads.
// Follow calls it in time. The error is the API server's.
func (a *Authority) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	a.rounds.Lock()
	defer a.rounds.Unlock()
	// In this order: what the registration shows was in the Secret before.
	if err := a.live.observe(ctx, a.opts.Registered, a.opts.Now()); err != nil {
		return err
	}
	stored, err := a.reload(ctx)
	if err != nil {
		return err
	}
	if a.leading.Load() {
		err = a.lead(ctx, stored)
	}
	a.look()
	if apierrors.IsConflict(err) { // somebody was quicker, and the next look shows who
		return nil
	}
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
	if _, err := a.reload(ctx); err != nil {
		return nil, err
	}
	return a.Bundle(), nil
}

// reload takes over what the Secret holds, if that goes on with what this replica holds.
func (a *Authority) reload(ctx context.Context) (record, error) {
	stored, err := a.store.load(ctx)
	switch {
	case apierrors.IsNotFound(err):
		a.complain("the Secret with the certificate authority is gone: the leader puts it back")
		return stored, nil
	case errors.Is(err, ErrUnusableCA):
		a.complain(err.Error())
		return stored, nil
	case err != nil:
		return stored, err
	}
	now := a.opts.Now()
	a.hold(succeed(*a.held.Load(), stored.authorities, &a.live, now))
	a.complain(a.pace.lateness(*a.held.Load(), now))
	return stored, nil
}

func (a *Authority) complain(problem string) {
	if a.health.report(a.opts.Log, problem) && a.opts.Changed != nil {
		a.opts.Changed()
	}
}

// hold replaces what this replica signs with and publishes.
func (a *Authority) hold(next authorities) {
	if a.held.Load().equal(next) {
		return
	}
	a.held.Store(&next)
	if a.opts.Changed != nil {
		a.opts.Changed()
	}
}

// firstLook is a round that cannot fail. A registration that cannot be read is no reason to hold a replica back.
func (a *Authority) firstLook(ctx context.Context) {
	if err := a.Round(ctx); err != nil {
		a.opts.Log.Warn("cannot look at the registration", slog.Any("err", err))
		a.health.trusted.Store(true)
	}
}

// lead writes what the Secret must hold: it puts back what was lost or replaced, or takes the next step.
func (a *Authority) lead(ctx context.Context, stored record) error {
	held, now := *a.held.Load(), a.opts.Now()
	if !stored.covers(held.signing(now).certificate) {
		a.opts.Log.Warn("certificate authority was deleted or replaced, and is put back", slog.String("name", SecretName))
		return a.write(ctx, stored, reconciled(held, stored.authorities, now))
	}
	next := a.pace.next(held, now, a.live.shownSince(held.upcoming.certificate))
	if next == keep {
		return nil
	}
	a.opts.Log.Info("rotating the certificate authority", slog.String("step", string(next)))
	return a.advance(ctx, stored, held, next)
}

// advance takes one step, and writes it.
func (a *Authority) advance(ctx context.Context, stored record, from authorities, s step) error {
	now := a.opts.Now()
	var fresh pair
	if s.needsNew() {
		var err error
		if fresh, err = newCA(a.opts.CALifetime, now); err != nil {
			return err
		}
	}
	return a.write(ctx, stored, a.pace.take(from, s, fresh, now))
}

// write stores the authorities in the place of what was read, and holds them once they are stored.
func (a *Authority) write(ctx context.Context, stored record, next authorities) error {
	if err := a.store.save(ctx, stored, next); err != nil {
		return err
	}
	if a.held.Load() != nil {
		a.hold(next)
	}
	return nil
}

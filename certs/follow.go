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

const (
	// roundTimeout limits a round: an API server that hangs must not block the next round, or the webhook configuration.
	roundTimeout = 10 * time.Second
	// startPoll is the pause between two rounds until API servers trust a replica that has just started.
	startPoll = 250 * time.Millisecond
	// maxStartDelay is how long a replica waits, at most, until API servers have noticed an unrelated CA.
	maxStartDelay = 15 * time.Second
)

// Follow reads the Secret and the webhook configuration until ctx ends. Every replica runs it. While Lead runs, it also rotates. It
// logs errors of the API server and tries again; serving does not depend on it.
func (a *Authority) Follow(ctx context.Context) {
	for {
		pause := a.pace.poll
		if !a.health.trusted.Load() {
			pause = startPoll
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-a.wake:
		}
		a.roundOrWarn(ctx)
	}
}

// Lead makes Follow rotate the CA until ctx ends, in the leader. Two leaders do no harm: each write needs the version that was read.
func (a *Authority) Lead(ctx context.Context) {
	a.leading.Store(true)
	defer a.leading.Store(false)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	<-ctx.Done()
}

// Refresh reads the Secret and returns the bundle for the webhook configuration. A new leader must call it first: its memory may
// lack a CA that the last leader wrote. If the Secret is missing or unusable, it returns the bundle of this replica.
func (a *Authority) Refresh(ctx context.Context) ([]byte, error) {
	if err := a.round(ctx, false); err != nil {
		return nil, err
	}
	return a.Bundle(), nil
}

func (a *Authority) roundOrWarn(ctx context.Context) {
	if err := a.round(ctx, a.leading.Load()); err != nil && ctx.Err() == nil {
		a.opts.Log.Warn("failed to update the CA", slog.Any("err", err))
	}
}

// round reads the Secret and the webhook configuration. With rotate, it takes one step of a rotation. The error is the API server's.
func (a *Authority) round(ctx context.Context, rotate bool) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	a.rounds.Lock()
	defer a.rounds.Unlock()
	stored, problem, err := a.reload(ctx)
	if err != nil {
		return err
	}
	if rotate {
		err = a.rotate(ctx, stored)
	}
	a.checkTrust()
	if apierrors.IsConflict(err) { // another client was faster: the next round reads what it wrote
		err = nil
	}
	if err != nil && problem == "" {
		problem = "the guard cannot write Secret " + SecretName + " to rotate its CA: " + err.Error()
	}
	a.health.report(cmp.Or(problem, a.notice, a.pace.lateness(*a.held.Load(), a.opts.Now())))
	return err
}

// reload reads the webhook configuration and the Secret, and holds what is proven. It returns the Secret, and its problem.
func (a *Authority) reload(ctx context.Context) (stored storedSet, problem string, err error) {
	// In this order: the Secret held a CA before the webhook configuration did.
	if err := a.live.read(ctx, a.opts.Registered, a.opts.Now()); err != nil {
		return storedSet{}, "", err
	}
	stored, err = a.store.load(ctx)
	switch {
	case apierrors.IsNotFound(err):
		problem = "Secret " + SecretName + " is missing: the leader restores it"
	case errors.Is(err, ErrUnusableCA):
		problem = err.Error()
	case err != nil:
		return stored, "", err
	}
	hasUnknown, err := a.adopt(stored.caSet)
	if hasUnknown {
		a.tampered.Add(1)
		problem = "Secret " + SecretName + " holds an unknown CA, which the guard does not use: the leader restores the Secret. " +
			"Check who may patch it"
	}
	return stored, problem, err
}

// adopt merges the CAs of the Secret, none if it is unusable, into those of this replica. hasUnknown says that some are unknown.
func (a *Authority) adopt(stored caSet) (hasUnknown bool, err error) {
	now := a.opts.Now()
	t := trust{held: *a.held.Load(), made: a.made, anchored: a.anchored, live: &a.live, pace: a.pace}
	anchors := t.anchors(now)
	merged, proven := t.merge(stored, anchors, now)
	_, heldProven := t.held.provenBy(anchors)
	// An empty caBundle says nothing against the CA: another client may have emptied it.
	if !proven && len(a.live.certificates) > 0 && !a.anchored && !heldProven {
		err = a.startOver(errUnknownCA, now)
	} else {
		a.hold(merged)
	}
	if g := a.grace.Load(); g != nil && (!now.Before(g.until) || !a.held.Load().current.certificate.Equal(a.made)) {
		a.grace.Store(nil)
		a.opts.Changed()
	}
	return len(provenBy(anchors, stored.bundle())) < len(stored.bundle()), err
}

func (a *Authority) hold(set caSet) {
	if before := a.held.Swap(&set); before != nil && !before.equal(set) {
		a.opts.Changed()
	}
}

// checkTrust makes the replica ready once API servers accept its leaf.
func (a *Authority) checkTrust() {
	now := a.opts.Now()
	signer := a.held.Load().signer(now)
	a.anchored = a.anchored || a.live.holdsFor(signer.certificate, 0, now)
	if a.live.holdsFor(signer.certificate, a.pace.propagation, now) {
		a.notice = ""
	}
	delay := time.Duration(0)
	// Other replicas may serve under an unrelated CA, which every API server accepts by now.
	if len(provenBy(caSet{current: signer}.bundle(), a.live.certificates)) < len(a.live.certificates) {
		delay = min(a.pace.propagation, maxStartDelay)
	}
	if !a.live.registered || a.live.holdsFor(signer.certificate, delay, now) {
		a.health.trusted.Store(true)
	}
}

// rotate restores the Secret, or takes the next step if it is unchanged.
func (a *Authority) rotate(ctx context.Context, stored storedSet) error {
	held, now := *a.held.Load(), a.opts.Now()
	if !held.equal(stored.caSet) {
		a.opts.Log.Warn("restoring the CA Secret, which another client deleted or changed", slog.String("name", SecretName))
		return a.take(ctx, stored, held, keep)
	}
	next := a.pace.step(held, a.live.holdsFor(held.next.certificate, a.pace.propagation, now), now)
	if next == keep {
		return nil
	}
	a.opts.Log.Info("rotating the CA", slog.String("step", string(next)))
	return a.take(ctx, stored, held, next)
}

// take takes one step and writes the Secret. The CA that signs endorses a new one, so that every replica accepts it.
func (a *Authority) take(ctx context.Context, stored storedSet, from caSet, step step) error {
	now := a.opts.Now()
	var fresh keyPair
	if step == prepare || step == replace {
		var err error
		if fresh, err = newCA(from.current, a.opts.CALifetime, now); err != nil {
			return err
		}
		a.made = fresh.certificate
	}
	set := a.pace.take(from, step, fresh, now)
	if err := a.store.save(ctx, stored, set); err != nil {
		return err
	}
	a.hold(set)
	if expired := from.current.certificate; step == replace && expired != nil {
		a.replaced.Add(1)
		a.notice = "the CA expired on " + expired.NotAfter.UTC().Format(time.RFC3339) +
			" and was replaced: API servers refused writes to reserved resources in between"
		a.opts.Log.Error("replaced the CA, which had expired", slog.String("name", SecretName))
	}
	return nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs provides the guard's serving certificate, its CA bundle, and the CAs of client certificates: all X.509 code.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is the Secret of type kubernetes.io/tls, in the guard's namespace, that holds the CAs.
const SecretName = "apigw-guardian-ca"

const (
	// DefaultCALifetime is one year: a CA is rotated after eight months.
	DefaultCALifetime = 365 * 24 * time.Hour
	// DefaultLeafLifetime limits what a stolen leaf key is worth. A leaf is renewed in memory after two thirds of it.
	DefaultLeafLifetime = 7 * 24 * time.Hour
	// MinLifetime is the shortest lifetime of a CA or leaf: certificates count whole seconds, and no replica polls faster.
	MinLifetime = 5 * time.Second
	// backdating is how far NotBefore lies in the past, for API servers whose clocks are late.
	backdating = time.Hour
	// maxPropagation is how long, at most, the webhook configuration holds a new CA before it signs. API servers notice in a second.
	maxPropagation = time.Minute
)

var (
	// ErrUnusableCA means that the Secret holds no working CA, and that an administrator must delete it.
	ErrUnusableCA = errors.New("unusable CA")
	// errUnknownCA means that the webhook configuration does not prove the CA in the Secret.
	errUnknownCA = errors.New("the Secret holds an unknown CA, which the webhook configuration does not prove")
)

// Client is the API that the Authority uses; CoreV1() of a clientset implements it. Serving does not use it.
type Client interface {
	corev1client.SecretsGetter
	corev1client.NamespacesGetter
}

// Registered returns the caBundle that all webhooks of the live webhook configuration have, and whether that exists.
type Registered func(context.Context) (bundle []byte, registered bool, err error)

// Options are the settings of an Authority. Namespace and Hosts are required.
type Options struct {
	// Namespace holds the Secret. It is created if it does not exist.
	Namespace string
	// Hosts are the DNS names and IP addresses, without ports, by which API servers call the guard.
	Hosts []string
	// CALifetime is how long a new CA is valid, at least MinLifetime; zero means DefaultCALifetime.
	CALifetime time.Duration
	// LeafLifetime is how long a leaf is valid, at least MinLifetime, and at most until its CA expires; zero means DefaultLeafLifetime.
	LeafLifetime time.Duration
	// Registered reads what API servers trust. Nil: there is no webhook configuration, and a CA is replaced only after it has expired.
	Registered Registered
	// Changed is called, by Follow or Refresh, after Bundle or the Problem of State has changed; may be nil.
	Changed func()
	// Log may be nil.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authority issues the serving certificate and rotates its CA. LoadAuthority makes one. Its methods may be called concurrently.
type Authority struct {
	opts  Options
	pace  pace
	store store

	held  atomic.Pointer[caSet]
	grace atomic.Pointer[grace]
	leaf  atomic.Pointer[leaf]
	issue sync.Mutex // held while a leaf is signed

	leading            atomic.Bool
	wake               chan struct{}
	health             health
	tampered, replaced atomic.Int64

	rounds   sync.Mutex // held during a round; guards the fields below
	live     liveBundle
	made     *x509.Certificate // the CA that this process made last; nil if it made none
	anchored bool              // the live webhook configuration has held the CA that signs
	notice   string            // a problem to report until the CA that signs has propagated
}

// grace is a bundle that API servers must trust for a while after a new CA has taken its place.
type grace struct {
	bundle []*x509.Certificate
	until  time.Time
}

// leaf is a serving certificate, its CA, and when to renew it.
type leaf struct {
	certificate *tls.Certificate
	ca          *x509.Certificate
	renew       time.Time
}

// LoadAuthority returns the CA of the Secret. If there is no Secret, it creates it, and the namespace if needed; replicas that
// start together agree on one CA. It replaces a CA that has expired.
//
// If the webhook configuration exists, it must hold the CA, or a CA that an endorsement links to it. Otherwise, or if the Secret
// is missing, this replica makes a new CA without a write. It writes that CA when it leads, and follows a proven one meanwhile.
//
// The error wraps the API server's error, or ErrUnusableCA: there is no webhook configuration, and the Secret holds no working CA. It
// never contains key material.
func LoadAuthority(ctx context.Context, client Client, opts Options) (*Authority, error) {
	opts.CALifetime, opts.LeafLifetime = cmp.Or(opts.CALifetime, DefaultCALifetime), cmp.Or(opts.LeafLifetime, DefaultLeafLifetime)
	setDefaults(&opts.Changed, &opts.Log, &opts.Now)
	a := &Authority{
		opts: opts, pace: paceOf(opts.CALifetime), wake: make(chan struct{}, 1),
		store:  store{client: client, namespace: opts.Namespace},
		health: health{log: opts.Log, changed: opts.Changed},
	}
	if err := a.start(ctx); err != nil {
		return nil, err
	}
	a.roundOrWarn(ctx)
	return a, nil
}

// start decides which CAs this replica holds first.
func (a *Authority) start(ctx context.Context) error {
	if err := a.live.read(ctx, a.opts.Registered, a.opts.Now()); err != nil {
		return err
	}
	stored, err := a.loadProven(ctx)
	now := a.opts.Now()
	switch {
	case a.live.registered && (apierrors.IsNotFound(err) || errors.Is(err, errUnknownCA) || errors.Is(err, ErrUnusableCA)):
		return a.startOver(err, now)
	case apierrors.IsNotFound(err), err == nil && a.pace.step(stored.caSet, false, now) == replace:
		if err = a.take(ctx, stored, stored.caSet, replace); err == nil {
			return nil
		}
		if apierrors.IsConflict(err) { // another replica was faster: use its CA
			stored, err = a.loadProven(ctx)
		}
	}
	if err != nil {
		return err
	}
	if reason := invalidity(currentCertKey, stored.signer(now).certificate, now); reason != "" {
		return unusable(a.opts.Namespace, reason)
	}
	a.hold(stored.caSet)
	return nil
}

// loadProven reads the Secret and drops its unknown CAs. Without a webhook configuration it trusts the current CA: no API server
// trusts any CA yet, so replicas that start together agree, and an administrator can provide a CA.
func (a *Authority) loadProven(ctx context.Context) (storedSet, error) {
	stored, err := a.store.load(ctx)
	if err != nil {
		return stored, err
	}
	anchors := a.live.certificates
	if !a.live.registered {
		anchors = []*x509.Certificate{stored.current.certificate}
	}
	proven, ok := stored.provenBy(anchors)
	if !ok {
		return stored, errUnknownCA
	}
	stored.caSet = proven
	return stored, nil
}

// startOver holds a new CA because the Secret holds no proven one. It writes nothing; the leader does. The bundle keeps the CAs of
// the webhook configuration for a while: other replicas may serve under them until they follow the new one.
func (a *Authority) startOver(reason error, now time.Time) error {
	fresh, err := newCA(keyPair{}, a.opts.CALifetime, now)
	if err != nil {
		return err
	}
	a.made = fresh.certificate
	a.replaced.Add(1)
	a.notice = "Secret " + SecretName + " was missing or held an unknown CA: the guard uses a new CA"
	a.opts.Log.Error("replacing the CA: the Secret holds no proven one", slog.String("name", SecretName), slog.Any("err", reason))
	a.grace.Store(&grace{
		bundle: except(a.live.certificates, a.pace.isOver(now)),
		until:  now.Add(3 * (a.pace.propagation + a.pace.poll)),
	})
	a.hold(caSet{current: fresh})
	return nil
}

// Bundle returns the CAs that API servers must trust, in PEM: the caBundle of a webhook configuration. The caller owns the slice.
func (a *Authority) Bundle() []byte {
	bundle := a.held.Load().bundle()
	if g := a.grace.Load(); g != nil && a.opts.Now().Before(g.until) {
		bundle = union(bundle, g.bundle)
	}
	return encodeBundle(bundle)
}

// State returns what this replica serves with now.
func (a *Authority) State() State {
	state := State{
		Problem: a.health.currentProblem(), Trusted: a.health.trusted.Load(), Tampered: a.tampered.Load(), Replaced: a.replaced.Load(),
	}
	l, err := a.validLeaf()
	if err != nil {
		state.Problem = cmp.Or(state.Problem, err.Error())
		return state
	}
	state.Leaf, state.Authority = l.certificate.Leaf, l.ca
	return state
}

// GetCertificate returns the leaf for all Hosts, for crypto/tls. It issues the leaf at the first call, after two thirds of its
// life, and when another CA signs. It waits for nothing but the signature. The error wraps ErrUnusableCA after the CA has expired.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l, err := a.validLeaf()
	if err != nil {
		return nil, err
	}
	return l.certificate, nil
}

func (a *Authority) validLeaf() (*leaf, error) {
	now := a.opts.Now()
	signer := a.held.Load().signer(now)
	if l := a.leaf.Load(); l.isFresh(signer, now) {
		return l, nil
	}
	a.issue.Lock()
	defer a.issue.Unlock()
	if l := a.leaf.Load(); l.isFresh(signer, now) { // another handshake was faster
		return l, nil
	}
	if reason := invalidity(currentCertKey, signer.certificate, now); reason != "" {
		return nil, unusable(a.opts.Namespace, reason)
	}
	certificate, err := newLeaf(a.opts, signer, now)
	if err != nil {
		return nil, fmt.Errorf("issue the serving certificate: %w", err)
	}
	end := certificate.Leaf.NotAfter
	l := &leaf{certificate: certificate, ca: signer.certificate, renew: now.Add(end.Sub(now) / 3 * 2)}
	if !end.Before(signer.certificate.NotAfter) { // a new leaf would not live longer
		l.renew = end
	}
	a.leaf.Store(l)
	return l, nil
}

// isFresh is false for nil.
func (l *leaf) isFresh(signer keyPair, now time.Time) bool {
	return l != nil && now.Before(l.renew) && l.ca.Equal(signer.certificate)
}

func setDefaults(changed *func(), log **slog.Logger, now *func() time.Time) {
	if *changed == nil {
		*changed = func() {}
	}
	if *now == nil {
		*now = time.Now
	}
	*log = cmp.Or(*log, slog.New(slog.DiscardHandler))
}

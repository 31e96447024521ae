// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs holds the guard's serving certificate, what API servers must trust for it, and whose certificates the
// guard trusts in its callers. All X.509 code of the guard is here.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is the Secret, in the guard's namespace, that holds the authorities. Its
// type is kubernetes.io/tls.
const SecretName = "apigw-guardian-ca"

const (
	// DefaultCALifetime is one year: an authority is rotated after eight months, four
	// before its end.
	DefaultCALifetime = 365 * 24 * time.Hour

	// DefaultLeafLifetime is seven days. A leaf is issued anew after two thirds, 4 days
	// and 16 hours, in memory; so this bounds only what a stolen leaf key is worth.
	DefaultLeafLifetime = 7 * 24 * time.Hour

	// MinLifetime is the shortest lifetime of an authority or a leaf. Certificates count
	// whole seconds, and replicas look at the Secret once a second at most.
	MinLifetime = 5 * time.Second

	// Backdating is how far NotBefore lies before the moment of issue, so that an API
	// server whose clock is up to an hour late accepts a fresh certificate.
	Backdating = time.Hour
)

const (
	// maxPropagation is how long a new authority is in the registration before anybody
	// signs with it. API servers watch registrations, and notice within a second; one
	// whose watch hangs for a minute hangs otherwise too.
	maxPropagation = time.Minute

	// minPoll and maxPoll bound the pause between two looks at the Secret. Within them,
	// sixty looks make one lifetime of an authority.
	minPoll = time.Second
	maxPoll = time.Minute

	// gatePoll is that pause while a replica that has just started waits for the
	// registration to show its authority.
	gatePoll = 250 * time.Millisecond
)

// What the errors of this package wrap; errors.Is finds them.
var (
	// ErrUnusableCA says that the Secret holds something that is not a working
	// authority: the administrator has to remove it.
	ErrUnusableCA = errors.New("unusable CA")

	// ErrInvalidOptions says that the caller's Options cannot work.
	ErrInvalidOptions = errors.New("invalid certificate options")
)

// Client is what the authority needs of the API server; the CoreV1() of a clientset
// is one. No method that serves uses it.
type Client interface {
	corev1client.SecretsGetter
	corev1client.NamespacesGetter
}

// Registered returns the caBundle that the live registration has in all its entries, and
// whether there is a registration. What it cannot tell is an error.
type Registered func(context.Context) (bundle []byte, registered bool, err error)

// Options are the settings of an Authority. Namespace and Hosts are required.
type Options struct {
	// Namespace holds the Secret. It is created if it does not exist.
	Namespace string

	// Hosts are the names that the leaf is for: DNS names and IP literals, without
	// ports. For a Service that is "NAME.NAMESPACE.svc".
	Hosts []string

	// CALifetime is how long a new authority is valid; zero means DefaultCALifetime.
	CALifetime time.Duration

	// LeafLifetime is how long a leaf is valid; zero means DefaultLeafLifetime. A leaf
	// never outlives its authority.
	LeafLifetime time.Duration

	// Registered is how the rotation knows what API servers trust. Nil stands for a
	// registration that does not exist: nothing is rotated before its end.
	Registered Registered

	// Changed is called, from the goroutine of Follow or Lead, after Bundle has changed;
	// nil for nobody.
	Changed func()

	// Log takes a line for each step of a rotation, and for what is wrong; nil discards.
	Log *slog.Logger

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authority issues the serving certificate and rotates what stands behind it.
// LoadAuthority makes one; the zero value is not usable. Its methods may be called
// concurrently. GetCertificate, Bundle and State need no API server.
type Authority struct {
	opts  Options
	pace  pace
	store store

	held  atomic.Pointer[authorities]
	leaf  atomic.Pointer[leaf]
	issue sync.Mutex // held by the one goroutine that issues

	leading atomic.Bool
	wake    chan struct{}
	health  health

	lingering          atomic.Pointer[lingering]
	tampered, replaced atomic.Int64 // counts for the metrics

	rounds   sync.Mutex // held during a look at the Secret; guards what follows
	live     sightings
	own      *x509.Certificate // the authority that this process has made last; nil for none
	anchored bool              // the registration has shown the authority that signs
	notice   string            // what the administrator must hear until API servers trust the authority that signs
}

// LoadAuthority returns the authority in the Secret SecretName. It creates the Secret, with the namespace if need be, where
// there is none; replicas that start at the same moment agree on one. An authority that has expired is replaced.
//
// Once a registration exists, the authority must be one that the registration shows, or one that such an authority
// endorses. A Secret that holds any other one, or none, is not used: this replica makes a new authority, which takes effect
// when this replica leads, and follows the Secret again as soon as that is proven.
//
// The error wraps ErrUnusableCA when there is no registration and the Secret does not hold a working authority: it names the
// Secret, what is wrong and what to do, and never contains key material. It wraps ErrInvalidOptions when opts cannot work,
// and the API server's error else.
func LoadAuthority(ctx context.Context, client Client, opts Options) (*Authority, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	a := &Authority{
		opts: opts, pace: paceOf(opts.CALifetime), wake: make(chan struct{}, 1),
		store: store{client: client, namespace: opts.Namespace},
	}
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	a.firstLook(ctx)
	return a, nil
}

// errUnproven says that the Secret holds an authority that no guard has made, as far as this replica can tell.
var errUnproven = errors.New("the Secret holds a certificate authority that the registration does not prove")

// begin decides what this replica holds at its start.
func (a *Authority) begin(ctx context.Context) error {
	if err := a.live.observe(ctx, a.opts.Registered, a.opts.Now()); err != nil {
		return err
	}
	stored, held, err := a.known(ctx)
	now := a.opts.Now()
	switch {
	case a.live.registered && isOfNoUse(err):
		return a.startOver(err, now)
	case apierrors.IsNotFound(err), err == nil && a.pace.next(held, now, time.Time{}) == replace:
		err = a.advance(ctx, stored, held, replace)
		if err == nil {
			return nil
		}
		if apierrors.IsConflict(err) { // another replica was quicker: what it wrote counts
			_, held, err = a.known(ctx)
		}
	}
	if err != nil {
		return err
	}
	if reason := held.signing(now).untimely(now); reason != "" {
		return unusable(a.opts.Namespace, reason)
	}
	a.hold(held)
	return nil
}

// isOfNoUse reports whether an error of known is about what the Secret holds, and not about the API server.
func isOfNoUse(err error) bool {
	return apierrors.IsNotFound(err) || errors.Is(err, errUnproven) || errors.Is(err, ErrUnusableCA)
}

// known reads the Secret and returns what of it a guard has made, as far as the start can tell. While there is no
// registration, no API server trusts any authority, and the Secret's signer is taken on trust: replicas that start together
// agree that way, and an administrator can provide one.
func (a *Authority) known(ctx context.Context) (record, authorities, error) {
	stored, err := a.store.load(ctx)
	if err != nil {
		return stored, authorities{}, err
	}
	anchors := a.live.bundle
	if !a.live.registered {
		anchors = []*x509.Certificate{stored.signer.certificate}
	}
	held, proven := stored.vouchedBy(anchors)
	if !proven {
		return stored, authorities{}, errUnproven
	}
	return stored, held, nil
}

// startOver holds a new authority, because the Secret holds none that is proven. Nothing is written before this replica
// leads. The registration keeps for a while what it shows: other replicas may run that still serve under it, and follow once
// every API server trusts the new one.
func (a *Authority) startOver(reason error, now time.Time) error {
	fresh, err := newCA(a.opts.CALifetime, now)
	if err != nil {
		return err
	}
	a.own = fresh.certificate
	a.replaced.Add(1)
	a.notice = "no guard made the certificate authority in the Secret " + SecretName + ", or it was gone: a new one takes its place"
	a.opts.Log.Error("certificate authority is not proven, and a new one takes its place",
		slog.String("name", SecretName), slog.Any("err", reason))
	a.lingering.Store(&lingering{
		bundle: slices.DeleteFunc(slices.Clone(a.live.bundle), a.pace.over(now)),
		until:  now.Add(3 * (a.pace.propagation + a.steadyPause())),
	})
	a.hold(authorities{signer: fresh})
	return nil
}

// lingering are certificates that stay in the bundle for a while only.
type lingering struct {
	bundle []*x509.Certificate
	until  time.Time
}

// Bundle returns the certificates of the authorities in PEM: the caBundle of a registration, as this replica knows it.
// The slice is the caller's.
func (a *Authority) Bundle() []byte {
	bundle := a.held.Load().bundle()
	if l := a.lingering.Load(); l != nil && a.opts.Now().Before(l.until) {
		bundle = union(bundle, l.bundle)
	}
	return encodeBundle(bundle)
}

// GetCertificate returns the leaf, for crypto/tls. It issues one at the first call, and
// a new one when two thirds of the time between issue and end have passed, or the signer
// has changed; other calls cost two atomic loads. It never waits for anything but the
// signature. The hello is not looked at: there is one leaf for all Hosts. The error wraps
// ErrUnusableCA once the authority has expired: then every handshake is refused.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := a.opts.Now()
	signer := a.held.Load().signing(now)
	if l := a.leaf.Load(); l.fresh(signer, now) {
		return l.certificate, nil
	}
	a.issue.Lock()
	defer a.issue.Unlock()
	if l := a.leaf.Load(); l.fresh(signer, now) { // another handshake was here first
		return l.certificate, nil
	}
	l, err := a.newLeaf(signer, now)
	if err != nil {
		return nil, err
	}
	a.leaf.Store(l)
	return l.certificate, nil
}

// newLeaf signs a new leaf.
func (a *Authority) newLeaf(signer pair, now time.Time) (*leaf, error) {
	if reason := signer.untimely(now); reason != "" {
		return nil, unusable(a.opts.Namespace, reason)
	}
	certificate, err := signer.sign(leafTemplate(a.opts, signer.certificate, now))
	if err != nil {
		return nil, fmt.Errorf("issue the serving certificate: %w", err)
	}
	return &leaf{
		certificate: certificate, signer: signer.certificate, renew: renewal(signer.certificate, certificate.Leaf, now),
	}, nil
}

// renewal is when the leaf is due: at two thirds of its life, or at its end if that is
// also the authority's, since a successor would not live longer.
func renewal(ca, leaf *x509.Certificate, now time.Time) time.Time {
	if !leaf.NotAfter.Before(ca.NotAfter) {
		return leaf.NotAfter
	}
	return now.Add(leaf.NotAfter.Sub(now) / 3 * 2)
}

// leaf is an issued certificate with the moment from which it is to be replaced.
type leaf struct {
	certificate *tls.Certificate
	signer      *x509.Certificate
	renew       time.Time
}

// fresh is false for nil.
func (l *leaf) fresh(signer pair, now time.Time) bool {
	return l != nil && now.Before(l.renew) && l.signer.Equal(signer.certificate)
}

// complete checks o and fills in what is zero.
func (o Options) complete() (Options, error) {
	if o.Namespace == "" {
		return o, fmt.Errorf("%w: Namespace is empty: name the guard's namespace", ErrInvalidOptions)
	}
	if len(o.Hosts) == 0 {
		return o, fmt.Errorf("%w: Hosts is empty: name the host by which the API server calls the guard", ErrInvalidOptions)
	}
	for _, host := range o.Hosts {
		if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(strings.ToLower(host))) > 0 {
			return o, fmt.Errorf("%w: host %q is neither a DNS name nor an IP address: give it without scheme and port",
				ErrInvalidOptions, host)
		}
	}
	o.Hosts = slices.Clone(o.Hosts)
	o.CALifetime = cmp.Or(o.CALifetime, DefaultCALifetime)
	o.LeafLifetime = cmp.Or(o.LeafLifetime, DefaultLeafLifetime)
	if least := min(o.CALifetime, o.LeafLifetime); least < MinLifetime {
		return o, fmt.Errorf("%w: a lifetime of %s: give at least %s", ErrInvalidOptions, least, MinLifetime)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

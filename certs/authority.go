// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package certs holds the guard's serving certificate and the authority behind it.
// All X.509 code of the guard is here.
package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is the Secret, in the guard's namespace, that holds the authority's
// certificate and private key. Its type is kubernetes.io/tls.
const SecretName = "apigw-guardian-ca"

const (
	// DefaultCALifetime is ten years: the authority is not rotated, so its end is an
	// outage, and must lie beyond the life of a cluster.
	DefaultCALifetime = 10 * 365 * 24 * time.Hour

	// DefaultLeafLifetime is seven days. A leaf is issued anew after two thirds, 4 days
	// and 16 hours, in memory; so this bounds only what a stolen leaf key is worth.
	DefaultLeafLifetime = 7 * 24 * time.Hour

	// Backdating is how far NotBefore lies before the moment of issue, so that an API
	// server whose clock is up to an hour late accepts a fresh certificate.
	Backdating = time.Hour
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
// is one. Only LoadAuthority uses it.
type Client interface {
	corev1client.SecretsGetter
	corev1client.NamespacesGetter
}

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

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authority issues the serving certificate. LoadAuthority makes one; the zero value is
// not usable. Its methods need no API server, and may be called concurrently.
type Authority struct {
	opts   Options
	ca     pair
	bundle []byte

	leaf    atomic.Pointer[leaf]
	issuing sync.Mutex // held by the one goroutine that issues
}

// LoadAuthority returns the authority in the Secret SecretName, which it creates, with
// the namespace if need be, when there is none. Replicas that start at the same moment
// agree on one: whoever comes second takes the first one's.
//
// The error wraps ErrUnusableCA when the Secret does not hold a working authority: it
// names the Secret, what is wrong and what to do, and never contains key material. It
// wraps ErrInvalidOptions when opts cannot work, and the API server's error else.
func LoadAuthority(ctx context.Context, client Client, opts Options) (*Authority, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	s := store{client: client, namespace: opts.Namespace}
	ca, err := s.loadOrCreate(ctx, opts)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}
	return &Authority{opts: opts, ca: ca, bundle: pem.EncodeToMemory(block)}, nil
}

// Bundle returns the authority's certificate in PEM: the caBundle of a registration.
// The slice is the caller's.
func (a *Authority) Bundle() []byte { return bytes.Clone(a.bundle) }

// GetCertificate returns the leaf, for crypto/tls. It issues one at the first call, and
// a new one when two thirds of the time between issue and end have passed; other calls
// cost one atomic load. It never waits for anything but the signature. The hello is
// not looked at: there is one leaf for all Hosts. The error wraps ErrUnusableCA once
// the authority has expired: then every handshake is refused.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := a.opts.Now()
	if l := a.leaf.Load(); l.fresh(now) {
		return l.certificate, nil
	}
	a.issuing.Lock()
	defer a.issuing.Unlock()
	if l := a.leaf.Load(); l.fresh(now) { // another handshake was here first
		return l.certificate, nil
	}
	l, err := a.issue(now)
	if err != nil {
		return nil, err
	}
	a.leaf.Store(l)
	return l.certificate, nil
}

// issue signs a new leaf.
func (a *Authority) issue(now time.Time) (*leaf, error) {
	if reason := a.ca.untimely(now); reason != "" {
		return nil, unusable(a.opts.Namespace, reason)
	}
	certificate, err := a.ca.sign(leafTemplate(a.opts, a.ca.certificate, now))
	if err != nil {
		return nil, fmt.Errorf("issue the serving certificate: %w", err)
	}
	return &leaf{certificate: certificate, renew: renewal(a.ca.certificate, certificate.Leaf, now)}, nil
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
	renew       time.Time
}

// fresh is false for nil.
func (l *leaf) fresh(now time.Time) bool { return l != nil && now.Before(l.renew) }

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
	if o.CALifetime < 0 || o.LeafLifetime < 0 {
		return o, fmt.Errorf("%w: a lifetime is negative: leave it zero for its default", ErrInvalidOptions)
	}
	o.Hosts = slices.Clone(o.Hosts)
	o.CALifetime = cmp.Or(o.CALifetime, DefaultCALifetime)
	o.LeafLifetime = cmp.Or(o.LeafLifetime, DefaultLeafLifetime)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

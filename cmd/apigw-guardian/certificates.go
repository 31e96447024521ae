// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// Where the serving certificate comes from.
const (
	certsBuiltin = "builtin"
	certsFiles   = "files"
)

// What becomes of a caller without a client certificate.
const (
	clientAuthRequire = "require"
	clientAuthRequest = "request"
)

// certificateFlags say with what the guard serves, and whom it answers.
type certificateFlags struct {
	mode                     string
	dir                      string
	caLifetime, leafLifetime time.Duration
	clientCA, clientAuth     string
}

func (f *certificateFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.mode, "certs", certsBuiltin,
		"builtin: an authority of the guard's own, which it rotates; files: a certificate that is provided in --cert-dir")
	flags.StringVar(&f.dir, "cert-dir", "", "with --certs files: folder of tls.crt, tls.key and ca.crt; read anew when they change")
	flags.DurationVar(&f.caLifetime, "ca-lifetime", certs.DefaultCALifetime,
		"with --certs builtin: how long an authority is valid; it is rotated after two thirds")
	flags.DurationVar(&f.leafLifetime, "leaf-lifetime", certs.DefaultLeafLifetime,
		"with --certs builtin: how long a serving certificate is valid; it is renewed after two thirds")
	flags.StringVar(&f.clientCA, "client-ca", "",
		"file of the authorities whose client certificate a caller must present; read anew when it changes (default: anybody may call)")
	flags.StringVar(&f.clientAuth, "client-auth", clientAuthRequire,
		"with --client-ca: require refuses callers without a certificate; request answers them, and records that they are not verified")
}

func (f *certificateFlags) check() error {
	switch {
	case f.mode != certsBuiltin && f.mode != certsFiles:
		return fmt.Errorf("--certs %q: give builtin or files", f.mode)
	case f.mode == certsFiles && f.dir == "":
		return errors.New("--certs files needs --cert-dir: the folder of tls.crt, tls.key and ca.crt")
	case f.mode == certsBuiltin && f.dir != "":
		return errors.New("--cert-dir needs --certs files: the built-in authority reads no files")
	case f.clientAuth != clientAuthRequire && f.clientAuth != clientAuthRequest:
		return fmt.Errorf("--client-auth %q: must be require or request", f.clientAuth)
	case f.clientAuth == clientAuthRequest && f.clientCA == "":
		return errors.New("--client-auth request needs --client-ca: the file of the authorities that callers are verified by")
	case f.caLifetime < certs.MinLifetime:
		return fmt.Errorf("--ca-lifetime %s: give at least %s", f.caLifetime, certs.MinLifetime)
	case f.leafLifetime < certs.MinLifetime:
		return fmt.Errorf("--leaf-lifetime %s: give at least %s", f.leafLifetime, certs.MinLifetime)
	case f.leafLifetime > f.caLifetime:
		return fmt.Errorf("--leaf-lifetime %s is above --ca-lifetime %s: a certificate never outlives its authority",
			f.leafLifetime, f.caLifetime)
	}
	return nil
}

// served is what a handshake needs, and what is told about it.
type served interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	State() certs.State
}

// bundled is what the webhook configuration needs: what API servers must trust.
type bundled interface {
	Refresh(ctx context.Context) (bundle []byte, err error)
	Bundle() []byte
}

// followed keeps a source up to date.
type followed interface {
	Follow(ctx context.Context)
	Lead(ctx context.Context)
}

// source is a serving certificate with what keeps it up to date.
type source interface {
	served
	bundled
	followed
}

// certificates are the guard's, from the moment that they are loaded.
type certificates struct {
	source  source        // set before loaded is closed
	loaded  chan struct{} // closed once there is something to serve
	changed chan struct{} // has an element when the registration has to follow
	leader  chan struct{} // has an element while this replica leads: an elected leader, or one that stands in
	callers *certs.ClientCA
}

// newCertificates reads what needs no cluster.
func newCertificates(flags certificateFlags, log *slog.Logger) (*certificates, error) {
	c := &certificates{loaded: make(chan struct{}), changed: make(chan struct{}, 1), leader: make(chan struct{}, 1)}
	if flags.clientCA != "" {
		var err error
		if c.callers, err = certs.LoadClientCA(flags.clientCA, log); err != nil {
			return nil, err
		}
	}
	if err := metrics.Registry.Register(certs.NewCollector(c.state)); err != nil {
		return nil, fmt.Errorf("register metrics of the certificates: %w", err)
	}
	return c, nil
}

// alongside runs serve with the certificates that load returns, and keeps them up to date until ctx ends.
func (c *certificates) alongside(ctx context.Context, load func(context.Context) (source, error), serve func() error) error {
	source, err := load(ctx)
	if err != nil {
		return err
	}
	c.source = source
	close(c.loaded)
	go source.Follow(ctx)
	if c.callers != nil {
		go c.callers.Follow(ctx)
	}
	return serve()
}

// lead rotates the certificates until ctx ends. The elected leader runs it, or a replica that stands in. One process never runs it
// twice at once.
func (c *certificates) lead(ctx context.Context) error {
	select {
	case <-c.loaded:
	case <-ctx.Done():
		return nil
	}
	select {
	case c.leader <- struct{}{}:
		defer func() { <-c.leader }()
		c.source.Lead(ctx)
	case <-ctx.Done():
	}
	return nil
}

const (
	// standInPatience is how long a problem of the certificates is left to the leader, which takes a step of the rotation each
	// half minute at the latest.
	standInPatience = time.Minute
	standInInterval = 5 * time.Second
)

// standIn leads in any replica once a problem of the certificates has lasted, until it is gone or ctx ends: another client may
// hold the lease for ever. That several replicas lead does no harm, as the Secret is written under its resourceVersion.
func (c *certificates) standIn(ctx context.Context) error {
	var since time.Time
	for pause(ctx, standInInterval) {
		switch {
		case !c.hasOwnProblem():
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= standInPatience:
			c.leadUntilSolved(ctx)
		}
	}
	return nil
}

func (c *certificates) leadUntilSolved(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = c.lead(ctx) }) // it never fails
	for c.hasOwnProblem() {
		if !pause(ctx, standInInterval) {
			break
		}
	}
	cancel()
	group.Wait()
}

// pause reports whether the pause was over before the end of ctx.
func pause(ctx context.Context, length time.Duration) bool {
	select {
	case <-time.After(length):
		return true
	case <-ctx.Done():
		return false
	}
}

// hasOwnProblem says that the certificates have a problem that a leader mends. That of the callers' CA file is none.
func (c *certificates) hasOwnProblem() bool {
	select {
	case <-c.loaded:
		return c.source.State().Problem != ""
	default:
		return false
	}
}

// bundle returns what API servers must trust, for the webhook configuration. If this replica may no longer read the Secret, it
// returns what this replica serves with, so that an absent webhook configuration is still restored.
func (c *certificates) bundle(ctx context.Context) ([]byte, error) {
	bundle, err := c.source.Refresh(ctx)
	if apierrors.IsForbidden(err) {
		return c.source.Bundle(), nil
	}
	return bundle, err
}

func (c *certificates) hasChanged() {
	select {
	case c.changed <- struct{}{}:
	default: // it is said already
	}
}

// serving answers a handshake. The server listens only once the certificates are loaded.
func (c *certificates) serving(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.source.GetCertificate(hello)
}

// clientCAs is nil where anybody may call.
func (c *certificates) clientCAs() func() *x509.CertPool {
	if c.callers == nil {
		return nil
	}
	return c.callers.Pool
}

func (c *certificates) state() certs.State {
	select {
	case <-c.loaded:
	default:
		return certs.State{}
	}
	state := c.source.State()
	if c.callers != nil && state.Problem == "" {
		state.Problem = c.callers.Problem()
	}
	return state
}

// ready is the check of /readyz.
func (c *certificates) ready(*http.Request) error { return c.state().Ready(time.Now()) }

// loadRetry is the pause between two attempts to load the authority while the API server cannot be reached.
const loadRetry = time.Second

// loadCertificates tries until it has a certificate, ctx ends, or what there is is of no use and somebody must look.
func (g *guard) loadCertificates(ctx context.Context) (source, error) {
	for {
		loaded, err := g.loadSource(ctx)
		if err == nil {
			return loaded, nil
		}
		for _, final := range []error{certs.ErrUnusableCA, certs.ErrInvalidOptions, certs.ErrUnusableFiles} {
			if errors.Is(err, final) {
				return nil, err
			}
		}
		g.settings.log.Warn("cannot load the certificate authority yet", slog.Any("err", err))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(loadRetry):
		}
	}
}

func (g *guard) loadSource(ctx context.Context) (source, error) {
	flags, host := g.settings.flags, g.settings.endpoint.Host()
	if flags.certificates.mode == certsFiles {
		return certs.LoadFiles(ctx, certs.FilesOptions{
			Dir: flags.certificates.dir, Host: host,
			Registered: g.registered, Changed: g.certificates.hasChanged, Log: g.settings.log,
		})
	}
	return certs.LoadAuthority(ctx, g.client.CoreV1(), certs.Options{
		Namespace: flags.namespace, Hosts: []string{host},
		CALifetime: flags.certificates.caLifetime, LeafLifetime: flags.certificates.leafLifetime,
		Registered: g.registered, Changed: g.certificates.hasChanged, Log: g.settings.log,
	})
}

// registered reads what the live registration lets API servers trust.
func (g *guard) registered(ctx context.Context) (bundle []byte, exists bool, err error) {
	live, err := g.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return registration.Bundle(live), true, nil
}

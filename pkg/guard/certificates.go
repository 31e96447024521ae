// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// Certificates say with what the guard serves, and which callers it answers.
type Certificates struct {
	// Dir holds tls.crt, tls.key and ca.crt; "" for the built-in CA.
	Dir string
	// CALifetime and LeafLifetime are those of the built-in CA and its serving certificates.
	CALifetime, LeafLifetime time.Duration
	// ClientCA is the file of CAs that verify callers; "" to answer every caller.
	ClientCA string
	// ClientCertOptional answers callers without a certificate too, and records that they are not verified.
	ClientCertOptional bool
}

// source is a serving certificate: *certs.Authority or *certs.Files.
type source interface {
	held
	upkeep
}

// held is what a source holds in memory. Bundle returns the CAs of this replica.
type held interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	State() certs.State
	Bundle() []byte
}

// upkeep calls the API server or reads files. Refresh returns the CA bundle for the webhook configuration. Follow keeps the source up to
// date in every replica, and Lead rotates it in the leader; both return when their context ends.
type upkeep interface {
	Refresh(ctx context.Context) (bundle []byte, err error)
	Follow(context.Context)
	Lead(context.Context)
}

// certificates hold the source once it is loaded.
type certificates struct {
	source  source        // set before loaded is closed
	loaded  chan struct{} // closed once there is a certificate
	leading chan struct{} // has an element while this replica leads or stands in for the leader
	callers *certs.ClientCA
}

// newCertificates reads the CAs of callers from the file; "" for none.
func newCertificates(clientCA string, registry prometheus.Registerer, log *slog.Logger) (*certificates, error) {
	c := &certificates{loaded: make(chan struct{}), leading: make(chan struct{}, 1)}
	if clientCA != "" {
		var err error
		if c.callers, err = certs.LoadClientCA(clientCA, log); err != nil {
			return nil, err
		}
	}
	registry.MustRegister(certs.NewCollector(c.state))
	return c, nil
}

func (c *certificates) load(s source) {
	c.source = s
	close(c.loaded)
}

func (c *certificates) isLoaded() bool {
	select {
	case <-c.loaded:
		return true
	default:
		return false
	}
}

// awaitLoaded reports whether the source was loaded before ctx ended.
func (c *certificates) awaitLoaded(ctx context.Context) bool {
	select {
	case <-c.loaded:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow keeps the certificates up to date until ctx ends.
func (c *certificates) follow(ctx context.Context) {
	if !c.awaitLoaded(ctx) {
		return
	}
	var group sync.WaitGroup
	group.Go(func() { c.source.Follow(ctx) })
	if c.callers != nil {
		group.Go(func() { c.callers.Follow(ctx) })
	}
	group.Wait()
}

// lead rotates the certificates until ctx ends, in the leader and in a replica that stands in; never twice at a time in one process.
func (c *certificates) lead(ctx context.Context) {
	if !c.awaitLoaded(ctx) {
		return
	}
	select {
	case c.leading <- struct{}{}:
		defer func() { <-c.leading }()
		c.source.Lead(ctx)
	case <-ctx.Done():
	}
}

const (
	// standInPatience is how long a replica leaves a problem to the leader, which takes a step of the rotation each half minute.
	standInPatience = time.Minute
	standInInterval = 5 * time.Second
)

// standIn leads in any replica once a problem of the certificates has lasted, until it is solved or ctx ends: another client may
// hold the lease. Several replicas may lead at once, as the Secret is written under its resourceVersion.
func (c *certificates) standIn(ctx context.Context) {
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
}

func (c *certificates) leadUntilSolved(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { c.lead(ctx) })
	for c.hasOwnProblem() {
		if !pause(ctx, standInInterval) {
			break
		}
	}
	cancel()
	group.Wait()
}

// pause reports whether the time was over before the end of ctx.
func pause(ctx context.Context, length time.Duration) bool {
	select {
	case <-time.After(length):
		return true
	case <-ctx.Done():
		return false
	}
}

// hasOwnProblem reports whether the certificates have a problem that a leader solves. A problem of the callers' CA file is none.
func (c *certificates) hasOwnProblem() bool {
	return c.isLoaded() && c.source.State().Problem != ""
}

// bundle returns what API servers must trust, for the webhook configuration. If this replica may no longer read the Secret, it
// returns the CAs that this replica serves with, so that an absent webhook configuration is still restored.
func (c *certificates) bundle(ctx context.Context) ([]byte, error) {
	bundle, err := c.source.Refresh(ctx)
	if apierrors.IsForbidden(err) {
		return c.source.Bundle(), nil
	}
	return bundle, err
}

// ownBundle returns the CAs that API servers must trust to call this replica; nil before the source is loaded.
func (c *certificates) ownBundle() []byte {
	if !c.isLoaded() {
		return nil
	}
	return c.source.Bundle()
}

// serving answers a handshake. The server listens only once the source is loaded.
func (c *certificates) serving(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.source.GetCertificate(hello)
}

// state returns the zero State before the source is loaded.
func (c *certificates) state() certs.State {
	if !c.isLoaded() {
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

// loadRetry is the pause between two attempts to load the certificates while the API server cannot be reached.
const loadRetry = time.Second

// loadCertificates tries until there is a certificate or ctx ends. An error means that an administrator must repair what is stored.
func (g *Guard) loadCertificates(ctx context.Context) error {
	for {
		loaded, err := g.loadSource(ctx)
		if err == nil {
			g.certificates.load(loaded)
			return nil
		}
		for _, final := range []error{certs.ErrUnusableCA, certs.ErrUnusableFiles} {
			if errors.Is(err, final) {
				return err
			}
		}
		g.options.Log.Warn("failed to load the certificates, trying again", slog.Any("err", err))
		if !pause(ctx, loadRetry) {
			return nil
		}
	}
}

// loadSource returns an unusable source with an error.
func (g *Guard) loadSource(ctx context.Context) (source, error) {
	settings, host := g.options.Certificates, g.options.Endpoint.Host()
	if settings.Dir != "" {
		return certs.LoadFiles(ctx, certs.FilesOptions{
			Dir: settings.Dir, Host: host, Registered: g.registered, Changed: g.changes.Notify, Log: g.options.Log,
		})
	}
	return certs.LoadAuthority(ctx, g.client.CoreV1(), certs.Options{
		Namespace: g.options.Namespace, Hosts: []string{host},
		CALifetime: settings.CALifetime, LeafLifetime: settings.LeafLifetime,
		Registered: g.registered, Changed: g.changes.Notify, Log: g.options.Log,
	})
}

// registered returns the CA bundle of the live webhook configuration.
func (g *Guard) registered(ctx context.Context) (bundle []byte, exists bool, err error) {
	configurations := g.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	live, err := client.Find(ctx, configurations, guardian.WebhookConfiguration)
	if live == nil {
		return nil, false, err
	}
	return registration.Bundle(live), true, nil
}

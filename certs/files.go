// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// The files of the directory, which a mounted Secret of cert-manager has.
const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
	caFile   = "ca.crt"
)

const (
	// filesPoll is how often the files are read.
	filesPoll = time.Second
	// filesLiveRead is how often the webhook configuration is read while no candidate waits for it.
	filesLiveRead = time.Minute
	// filesPropagation is how long the webhook configuration holds a CA before its certificate is served. API servers notice in a second.
	filesPropagation = 15 * time.Second
)

// ErrUnusableFiles means that the directory holds no certificate that the guard can serve.
var ErrUnusableFiles = errors.New("unusable certificate files")

// FilesOptions are the settings of Files. Dir and Host are required.
type FilesOptions struct {
	// Dir holds tls.crt (the leaf, then intermediates), tls.key and ca.crt (what API servers must trust), in PEM.
	Dir string
	// Host is the name by which API servers call the guard.
	Host string
	// Registered, Changed, Log and Now are as in Options.
	Registered Registered
	Changed    func()
	Log        *slog.Logger
	Now        func() time.Time
}

// Files serves the certificate that is provided in a directory. LoadFiles makes one. Its methods may be called concurrently.
type Files struct {
	opts   FilesOptions
	held   atomic.Pointer[providedSet]
	health health

	rounds   sync.Mutex // held during a round; guards the fields below
	read     contents
	live     liveBundle
	liveRead time.Time
}

// contents is certFile, keyFile and caFile.
type contents [3]string

// LoadFiles reads the directory. The error wraps ErrUnusableFiles, names the file, and never contains key material.
func LoadFiles(ctx context.Context, opts FilesOptions) (*Files, error) {
	setDefaults(&opts.Changed, &opts.Log, &opts.Now)
	f := &Files{opts: opts, health: health{log: opts.Log, changed: opts.Changed}}
	read, first, err := f.open()
	if err != nil {
		return nil, err
	}
	f.read = read
	f.held.Store(&providedSet{current: first})
	if err := f.round(ctx); err != nil {
		opts.Log.Warn("failed to read the webhook configuration", slog.Any("err", err))
		f.health.trusted.Store(true)
	}
	return f, nil
}

// GetCertificate returns the current certificate, for crypto/tls, even an expired one: the API server's error then says so.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.held.Load().current.certificate, nil
}

// Bundle returns the CAs of all certificates that a replica may serve, in PEM.
func (f *Files) Bundle() []byte { return encodeBundle(f.held.Load().bundle()) }

// Refresh reads the files and returns the bundle for the webhook configuration. It never fails: unusable files change nothing.
func (f *Files) Refresh(context.Context) ([]byte, error) {
	f.rounds.Lock()
	defer f.rounds.Unlock()
	f.reload()
	return f.Bundle(), nil
}

// Follow reads the files until ctx ends. Every replica runs it.
func (f *Files) Follow(ctx context.Context) {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := f.round(ctx); err != nil && ctx.Err() == nil {
			f.opts.Log.Warn("failed to read the webhook configuration", slog.Any("err", err))
		}
	}, filesPoll)
}

// Lead does nothing until ctx ends: a leader does not write the files.
func (f *Files) Lead(ctx context.Context) { <-ctx.Done() }

// round reads the files once, and then the webhook configuration if needed. The error is the API server's.
func (f *Files) round(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	f.rounds.Lock()
	defer f.rounds.Unlock()
	f.reload()
	now := f.opts.Now()
	held := *f.held.Load()
	if held.candidate != nil || !f.health.trusted.Load() || now.Sub(f.liveRead) >= filesLiveRead {
		f.liveRead = now
		err = f.live.read(ctx, f.opts.Registered, now)
	}
	held = held.next(&f.live, now)
	f.hold(held)
	if !f.live.registered || held.current.rootIn(f.live.propagated(held.bundle(), f.startDelay(held), now), now) != nil {
		f.health.trusted.Store(true)
	}
	return err
}

// startDelay is how long the webhook configuration must hold the CA before the replica is ready. Other replicas may serve under another
// source's CA, which every API server accepts by now.
func (f *Files) startDelay(held providedSet) time.Duration {
	if len(except(f.live.certificates, func(c *x509.Certificate) bool { return contains(held.bundle(), c) })) > 0 {
		return filesPropagation
	}
	return 0
}

// reload makes changed files the candidate, or reports their problem.
func (f *Files) reload() {
	read, candidate, err := f.open()
	if err != nil {
		f.health.report(err.Error())
		return
	}
	if read != f.read {
		f.read = read
		f.opts.Log.Info("certificate files have changed", slog.String("path", f.opts.Dir))
		f.hold(f.held.Load().add(candidate))
	}
	f.health.report(f.held.Load().lateness(f.opts.Now()))
}

func (f *Files) hold(set providedSet) {
	before := f.Bundle()
	f.held.Store(&set)
	if !bytes.Equal(before, f.Bundle()) {
		f.opts.Changed()
	}
}

// State returns what this replica serves with now.
func (f *Files) State() State {
	current := f.held.Load().current
	return State{
		Leaf: current.certificate.Leaf, Authority: current.rootIn(current.cas, f.opts.Now()),
		Problem: f.health.currentProblem(), Trusted: f.health.trusted.Load(),
	}
}

func (f *Files) open() (contents, provided, error) {
	var read contents
	for i, name := range []string{certFile, keyFile, caFile} {
		data, err := os.ReadFile(filepath.Join(f.opts.Dir, name))
		if err != nil {
			return contents{}, provided{}, f.unusable(readProblem(name, err))
		}
		read[i] = string(data)
	}
	p, reason := parseProvided(read, f.opts.Host, f.opts.Now())
	if reason != "" {
		return contents{}, provided{}, f.unusable(reason)
	}
	return read, p, nil
}

func (f *Files) unusable(reason string) error {
	return fmt.Errorf("%w in %s: %s: provide a certificate for %s with its key, and the CA that signed it",
		ErrUnusableFiles, f.opts.Dir, reason, f.opts.Host)
}

func readProblem(name string, err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return name + " is missing"
	case errors.Is(err, os.ErrPermission):
		return name + " may not be read"
	}
	return name + " cannot be read"
}

// ClientCA is a file with the CAs of client certificates. LoadClientCA makes one. Its methods may be called concurrently.
type ClientCA struct {
	path   string
	log    *slog.Logger
	pool   atomic.Pointer[x509.CertPool]
	health health
	read   []byte // used by LoadClientCA, then by Follow only
}

// LoadClientCA reads a file of PEM certificates. log may be nil.
func LoadClientCA(path string, log *slog.Logger) (*ClientCA, error) {
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	c := &ClientCA{path: path, log: log, health: health{log: log, changed: func() {}}}
	return c, c.reload()
}

// Pool returns the CAs as last read. Callers must not change it.
func (c *ClientCA) Pool() *x509.CertPool { return c.pool.Load() }

// Problem says why the file is unusable; "" if it is usable. Pool is then as it was before.
func (c *ClientCA) Problem() string { return c.health.currentProblem() }

// Follow reads the file once a second until ctx ends.
func (c *ClientCA) Follow(ctx context.Context) {
	wait.UntilWithContext(ctx, func(context.Context) {
		problem := ""
		if err := c.reload(); err != nil {
			problem = err.Error()
		}
		c.health.report(problem)
	}, filesPoll)
}

// reload reads the file once. An error changes nothing.
func (c *ClientCA) reload() error {
	data, err := os.ReadFile(c.path)
	if err != nil {
		return c.unusable(readProblem("the file", err))
	}
	if c.pool.Load() != nil && bytes.Equal(data, c.read) {
		return nil
	}
	cas, reason := parseCertificates(data)
	if reason != "" {
		return c.unusable("it is not a list of PEM certificates: " + reason)
	}
	c.read = data
	c.pool.Store(poolOf(cas))
	c.log.Info("read the client CA", slog.String("path", c.path), slog.Int("count", len(cas)))
	return nil
}

func (c *ClientCA) unusable(reason string) error {
	return fmt.Errorf("unusable client CA %s: %s: provide the CA of the API servers' client certificates", c.path, reason)
}

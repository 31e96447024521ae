// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
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

	"k8s.io/client-go/util/cert"
)

// The files of a folder with a provided certificate. A mounted Secret of cert-manager has them.
const (
	certFile      = "tls.crt"
	keyFile       = "tls.key"
	authorityFile = "ca.crt"
)

const (
	// filesPoll is how often the files are read.
	filesPoll = time.Second
	// filesLook is how often the registration is looked at while nothing waits for it.
	filesLook = time.Minute
	// filesPropagation is how long the registration shows the authority of new files before they are served. Nobody knows how
	// soon whoever provides them wants that, so it is short: API servers watch registrations, and notice within a second.
	filesPropagation = 15 * time.Second
)

// ErrUnusableFiles says that the folder holds no certificate that the guard could serve with.
var ErrUnusableFiles = errors.New("unusable certificate files")

// FilesOptions are the settings of Files. Dir and Host are required.
type FilesOptions struct {
	// Dir holds tls.crt (the leaf, and intermediates if there are any), tls.key and ca.crt (what API servers are to trust),
	// all in PEM.
	Dir string
	// Host is the name by which the API server calls the guard.
	Host string
	// Registered, Changed, Log and Now are as in Options.
	Registered Registered
	Changed    func()
	Log        *slog.Logger
	Now        func() time.Time
}

// Files serves with a certificate that somebody else provides in a folder, and follows it. LoadFiles makes one; the zero
// value is not usable. Its methods may be called concurrently.
type Files struct {
	opts   FilesOptions
	held   atomic.Pointer[offers]
	health health

	rounds sync.Mutex // held during a look at the files; guards what follows
	read   contents
	live   sightings
	looked time.Time
}

// contents are the bytes of the three files.
type contents struct{ cert, key, authority []byte }

func (c contents) equal(d contents) bool {
	return bytes.Equal(c.cert, d.cert) && bytes.Equal(c.key, d.key) && bytes.Equal(c.authority, d.authority)
}

// LoadFiles reads the folder. The error wraps ErrUnusableFiles, names the file, and says what is wrong and what to do; it
// never contains key material.
func LoadFiles(ctx context.Context, opts FilesOptions) (*Files, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	f := &Files{opts: opts}
	read, first, err := f.open()
	if err != nil {
		return nil, err
	}
	f.read = read
	f.held.Store(&offers{serving: first})
	if err := f.Round(ctx); err != nil {
		opts.Log.Warn("cannot look at the registration", slog.Any("err", err))
		f.health.trusted.Store(true)
	}
	return f, nil
}

// GetCertificate returns the certificate that is served now, for crypto/tls. It returns one that has expired too: the API
// server's message then says so.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.held.Load().serving.certificate, nil
}

// Bundle returns what API servers must trust, in PEM: the authorities of all certificates that may be served.
func (f *Files) Bundle() []byte { return encodeBundle(f.held.Load().bundle()) }

// Refresh reads the files and returns the bundle that a registration must have now. It never fails: files of no use leave the
// ones before in their place.
func (f *Files) Refresh(context.Context) ([]byte, error) {
	f.rounds.Lock()
	defer f.rounds.Unlock()
	f.reload()
	return f.Bundle(), nil
}

// Follow keeps up with the files until ctx ends: every replica runs it.
func (f *Files) Follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(filesPoll):
		}
		if err := f.Round(ctx); err != nil && ctx.Err() == nil {
			f.opts.Log.Warn("cannot look at the registration", slog.Any("err", err))
		}
	}
}

// Lead does nothing until ctx ends: nobody writes here.
func (f *Files) Lead(ctx context.Context) { <-ctx.Done() }

// Round looks once at the files, and at the registration where that matters. Follow calls it in time. The error is the API
// server's, and does not keep it from looking at the files.
func (f *Files) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	f.rounds.Lock()
	defer f.rounds.Unlock()
	f.reload()
	now := f.opts.Now()
	held := *f.held.Load()
	var err error
	if held.waiting() || !f.health.trusted.Load() || now.Sub(f.looked) >= filesLook {
		f.looked = now
		err = f.live.observe(ctx, f.opts.Registered, now)
	}
	f.hold(held.next(&f.live, now))
	if !f.live.registered || f.held.Load().serving.verifies(f.live.settled(f.Authorities(), now, 0), now) {
		f.health.trusted.Store(true)
	}
	return err
}

// Authorities are the certificates of Bundle.
func (f *Files) Authorities() []*x509.Certificate { return f.held.Load().bundle() }

// reload takes in files that have changed, or says what is wrong with them.
func (f *Files) reload() {
	read, offer, err := f.open()
	if err != nil {
		f.complain(err.Error())
		return
	}
	if !read.equal(f.read) {
		f.read = read
		f.opts.Log.Info("certificate files have changed", slog.String("path", f.opts.Dir))
		f.hold(f.held.Load().add(offer))
	}
	f.complain(f.held.Load().lateness(f.opts.Now()))
}

func (f *Files) complain(problem string) {
	if f.health.report(f.opts.Log, problem) && f.opts.Changed != nil {
		f.opts.Changed()
	}
}

// hold replaces what is served and published.
func (f *Files) hold(next offers) {
	before := f.Bundle()
	f.held.Store(&next)
	if f.opts.Changed != nil && !bytes.Equal(before, f.Bundle()) {
		f.opts.Changed()
	}
}

// State tells what this replica serves with now.
func (f *Files) State() State {
	serving := f.held.Load().serving
	return State{
		Leaf: serving.certificate.Leaf, Authority: serving.authority(f.opts.Now()),
		Problem: f.health.complaint(), Trusted: f.health.trusted.Load(),
	}
}

// open reads and checks the three files.
func (f *Files) open() (contents, offer, error) {
	var read contents
	for _, file := range []struct {
		name string
		into *[]byte
	}{{certFile, &read.cert}, {keyFile, &read.key}, {authorityFile, &read.authority}} {
		data, err := os.ReadFile(filepath.Join(f.opts.Dir, file.name))
		if err != nil {
			return contents{}, offer{}, f.unusable(readReason(file.name, err))
		}
		*file.into = data
	}
	made, reason := read.offer()
	if reason == "" {
		reason = made.defect(f.opts.Host, f.opts.Now())
	}
	if reason != "" {
		return contents{}, offer{}, f.unusable(reason)
	}
	return read, made, nil
}

func (f *Files) unusable(reason string) error {
	return fmt.Errorf("%w in %s: %s: provide a certificate for %s with its key, and the authority that signed it",
		ErrUnusableFiles, f.opts.Dir, reason, f.opts.Host)
}

func readReason(name string, err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return name + " is missing"
	case errors.Is(err, os.ErrPermission):
		return name + " may not be read"
	}
	return name + " cannot be read"
}

// offer makes a certificate of the bytes, or says why it cannot.
func (c contents) offer() (made offer, reason string) {
	chain, key, reason := parseKeyPair(certFile, keyFile, c.cert, c.key)
	if reason != "" {
		return offer{}, reason
	}
	authorities, err := cert.ParseCertsPEM(c.authority)
	if err != nil {
		return offer{}, authorityFile + " is not a list of PEM certificates"
	}
	certificate := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return offer{certificate: certificate, intermediates: chain[1:], authorities: authorities}, ""
}

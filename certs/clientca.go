// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/cert"
)

// ErrUnusableClientCA says that a file holds no authorities of callers.
var ErrUnusableClientCA = errors.New("unusable client CA")

// ClientCA are the authorities whose client certificates callers must present, and follows their file. LoadClientCA makes
// one; the zero value is not usable. Its methods may be called concurrently.
type ClientCA struct {
	path   string
	log    *slog.Logger
	pool   atomic.Pointer[x509.CertPool]
	health health
	read   []byte // by Follow only, once that runs
}

// LoadClientCA reads a file of PEM certificates. The error wraps ErrUnusableClientCA. A nil log discards.
func LoadClientCA(path string, log *slog.Logger) (*ClientCA, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &ClientCA{path: path, log: log}
	return c, c.Reload()
}

// Pool returns the authorities as they are now. Callers must not change it.
func (c *ClientCA) Pool() *x509.CertPool { return c.pool.Load() }

// Problem says what is wrong with the file, which then counts as it was before; "" for nothing.
func (c *ClientCA) Problem() string { return c.health.complaint() }

// Follow reads the file once a second until ctx ends.
func (c *ClientCA) Follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(filesPoll):
		}
		problem := ""
		if err := c.Reload(); err != nil {
			problem = err.Error()
		}
		c.health.report(c.log, problem)
	}
}

// Reload reads the file once; Follow calls it in time. The error wraps ErrUnusableClientCA, and the authorities are then those
// that were read before.
func (c *ClientCA) Reload() error {
	data, err := os.ReadFile(c.path)
	if err != nil {
		return c.unusable(readReason("the file", err))
	}
	if c.pool.Load() != nil && bytes.Equal(data, c.read) {
		return nil
	}
	authorities, err := cert.ParseCertsPEM(data)
	if err != nil {
		return c.unusable("it is not a list of PEM certificates")
	}
	c.read = data
	c.pool.Store(poolOf(authorities))
	c.log.Info("authorities of callers have been read", slog.String("path", c.path), slog.Int("count", len(authorities)))
	return nil
}

func (c *ClientCA) unusable(reason string) error {
	return fmt.Errorf("%w %s: %s: provide the authority of the API servers' client certificates", ErrUnusableClientCA, c.path, reason)
}

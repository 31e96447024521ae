// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/cert"
)

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
	cas, err := cert.ParseCertsPEM(data)
	if err != nil {
		return c.unusable("it is not a list of PEM certificates")
	}
	c.read = data
	c.pool.Store(poolOf(cas))
	c.log.Info("read the client CA", slog.String("path", c.path), slog.Int("count", len(cas)))
	return nil
}

func (c *ClientCA) unusable(reason string) error {
	return fmt.Errorf("unusable client CA %s: %s: provide the CA of the API servers' client certificates", c.path, reason)
}

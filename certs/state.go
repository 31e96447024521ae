// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	errNoCertificate = errors.New("no valid serving certificate")
	errNotTrustedYet = errors.New("the webhook configuration does not hold the CA yet")
)

// State is what this replica serves with.
type State struct {
	// Leaf is the serving certificate; nil if there is none.
	Leaf *x509.Certificate
	// Authority is the CA of Leaf; nil if there is none.
	Authority *x509.Certificate
	// Problem says what is wrong with the provided files or the Secret, and what to do; "" if nothing is. It never holds key
	// material. The guard may still serve with an earlier certificate.
	Problem string
	// Trusted becomes true once the webhook configuration holds the CA, or does not exist. It then stays true.
	Trusted bool
	// Tampered counts the reads of the Secret that found an unknown CA. The guard did not use it.
	Tampered int64
	// Replaced counts the CAs that this replica replaced at once because they had expired or were unknown.
	Replaced int64
}

// Ready returns nil if API servers accept the certificate of this replica.
//
// It fails only when TLS handshakes would fail. If an approaching expiry did that, all replicas would leave the Service at once.
func (s State) Ready(now time.Time) error {
	switch {
	case s.Leaf == nil:
		return errNoCertificate
	case now.After(s.Leaf.NotAfter):
		return fmt.Errorf("%w: it has expired on %s", errNoCertificate, s.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case !s.Trusted:
		return errNotTrustedYet
	}
	return nil
}

// health is what a certificate source reports about itself.
type health struct {
	log     *slog.Logger
	changed func()
	trusted atomic.Bool
	problem atomic.Value // a string
}

func (h *health) currentProblem() string {
	problem, _ := h.problem.Load().(string)
	return problem
}

// report sets the problem; "" if there is none. It logs a change, and calls changed.
func (h *health) report(problem string) {
	before, _ := h.problem.Swap(problem).(string)
	if before == problem {
		return
	}
	if problem == "" {
		h.log.Info("certificate problem solved")
	} else {
		h.log.Error("certificate problem", slog.String("reason", problem))
	}
	h.changed()
}

type collector struct {
	state                                 func() State
	notAfter, problem, tampered, replaced *prometheus.Desc
}

// NewCollector returns the metrics of a State, which it reads at each scrape. Without a Leaf there is only the problem.
func NewCollector(state func() State) prometheus.Collector {
	return &collector{
		state: state,
		notAfter: prometheus.NewDesc("apigw_guardian_certificate_not_after_seconds",
			"Unix time at which the certificate expires: the serving certificate (leaf) or its CA (ca).", []string{"certificate"}, nil),
		problem: prometheus.NewDesc("apigw_guardian_certificate_problem",
			"1 while the provided files or the CA Secret have a problem, which the log names.", nil, nil),
		tampered: prometheus.NewDesc("apigw_guardian_ca_secret_tampered_total",
			"Reads of the CA Secret that found an unknown CA. The guard did not use it.", nil, nil),
		replaced: prometheus.NewDesc("apigw_guardian_ca_replaced_total",
			"CAs that were replaced at once because they had expired or were unknown.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.notAfter, c.problem, c.tampered, c.replaced} {
		descs <- desc
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(samples chan<- prometheus.Metric) {
	state := c.state()
	for label, certificate := range map[string]*x509.Certificate{"leaf": state.Leaf, "ca": state.Authority} {
		if certificate != nil {
			samples <- prometheus.MustNewConstMetric(c.notAfter, prometheus.GaugeValue, float64(certificate.NotAfter.Unix()), label)
		}
	}
	problem := 0.0
	if state.Problem != "" {
		problem = 1
	}
	samples <- prometheus.MustNewConstMetric(c.problem, prometheus.GaugeValue, problem)
	if state.Leaf != nil {
		samples <- prometheus.MustNewConstMetric(c.tampered, prometheus.CounterValue, float64(state.Tampered))
		samples <- prometheus.MustNewConstMetric(c.replaced, prometheus.CounterValue, float64(state.Replaced))
	}
}

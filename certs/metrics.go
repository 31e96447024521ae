// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
)

// collector asks for the state at each scrape.
type collector struct {
	state                                 func() State
	notAfter, problem, tampered, replaced *prometheus.Desc
}

// NewCollector returns the metrics of what a replica serves with. state may be called at any time, also before there is
// anything to serve: there are no samples then but that of the problem.
func NewCollector(state func() State) prometheus.Collector {
	return &collector{
		state: state,
		notAfter: prometheus.NewDesc("apigw_guardian_certificate_not_after_seconds",
			"When the certificate ends, in seconds since 1970: the one that is served (leaf), and the authority that signed it (ca).",
			[]string{"certificate"}, nil),
		problem: prometheus.NewDesc("apigw_guardian_certificate_problem",
			"1 while the certificates that were provided last, or the Secret of the authority, are of no use; the log says why.", nil, nil),
		tampered: prometheus.NewDesc("apigw_guardian_ca_secret_tampered_total",
			"Looks at the Secret of the certificate authority that found an authority which no guard has made. It was not used.", nil, nil),
		replaced: prometheus.NewDesc("apigw_guardian_ca_replaced_total",
			"Certificate authorities that were replaced at once, because they had expired or were not proven.", nil, nil),
	}
}

// Describe tells the metrics that there are.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.notAfter
	descs <- c.problem
	descs <- c.tampered
	descs <- c.replaced
}

// Collect sends what is now.
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
	if state.Leaf == nil {
		return
	}
	samples <- prometheus.MustNewConstMetric(c.tampered, prometheus.CounterValue, float64(state.Tampered))
	samples <- prometheus.MustNewConstMetric(c.replaced, prometheus.CounterValue, float64(state.Replaced))
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
)

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

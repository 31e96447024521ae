// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Metrics counts decisions. All labels are bounded by the code and the reserved set; nothing of a request becomes one.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	probes   prometheus.Counter
}

// NewMetrics makes the metrics and registers them; the error is of the registry (registered before).
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_requests_total",
			Help: "Admission reviews by decision (allow, deny), reason, and the reserved kind of resource (\"\" where none is concerned).",
		}, []string{"decision", "reason", "resource"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apigw_guardian_request_duration_seconds",
			Help:    "Time from the head of a review to its answer, by decision.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"decision"}),
		probes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_probes_total",
			Help: "Denied dry-runs of status, verify and authorize to which this replica added its proof.",
		}),
	}
	for _, collector := range []prometheus.Collector{m.requests, m.duration, m.probes} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics of the webhook: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) observe(decision policy.Decision, took time.Duration) {
	resource := ""
	if decision.Resource != nil {
		resource = decision.Resource.GVR.Resource
	}
	m.requests.WithLabelValues(verdict(decision), string(decision.Reason), resource).Inc()
	m.duration.WithLabelValues(verdict(decision)).Observe(took.Seconds())
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of an attempt to store a record, as labels.
const (
	resultStored = "stored"
	resultFailed = "failed"
)

// Places where a fact was safe when the answer went out, as labels.
const (
	placeStore  = "apiserver"
	placeSpool  = "spool"
	placeMemory = "memory"
)

// metrics tell how the recorder does. Labels are the constants above.
type metrics struct {
	facts   *prometheus.CounterVec
	writes  *prometheus.CounterVec
	lost    prometheus.Counter
	flood   prometheus.Counter
	altered prometheus.Counter
}

// newMetrics registers the metrics; the two gauges ask the recorder when they are read.
func newMetrics(registry prometheus.Registerer, r *Recorder) (*metrics, error) {
	m := &metrics{
		facts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_facts_total",
			Help: "Writes counted into audit records, by where the fact was safe when the answer went out (apiserver, spool, memory).",
		}, []string{"safe_in"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_record_writes_total",
			Help: "Attempts to store an audit record in the API server, by result (stored, failed).",
		}, []string{"result"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_lost_total",
			Help: "Writes that are in no audit record and in no spool: only the log has them.",
		}),
		flood: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_flood_total",
			Help: "Writes that share an audit record with unequal ones, as new records came too fast.",
		}),
		altered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_altered_total",
			Help: "Audit records that another client altered, deleted or prepared; their writes were stored again under another name.",
		}),
	}
	for _, collector := range []prometheus.Collector{
		m.facts, m.writes, m.lost, m.flood, m.altered,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apigw_guardian_audit_pending_records",
			Help: "Audit records with counts that are not stored in the API server yet.",
		}, func() float64 { return float64(r.pending()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "apigw_guardian_audit_spool_bytes",
			Help: "Size of the local spool.",
		}, func() float64 { return float64(r.spoolBytes()) }),
	} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics of the recorder: %w", err)
		}
	}
	return m, nil
}

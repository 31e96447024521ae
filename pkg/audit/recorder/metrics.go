// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Values of labels: the result of an attempt to store a record, and the place where an event was safe when the guard answered.
const (
	resultStored = "stored"
	resultFailed = "failed"

	placeStore  = "apiserver"
	placeSpool  = "spool"
	placeMemory = "memory"
)

type metrics struct {
	events, writes       *prometheus.CounterVec
	lost, flood, altered prometheus.Counter
}

// newMetrics registers the metrics. It panics if the registry has them.
func newMetrics(registry prometheus.Registerer, r *Recorder) *metrics {
	register := promauto.With(registry)
	register.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apigw_guardian_audit_pending_records",
		Help: "Audit records with counts that are not stored in the API server.",
	}, func() float64 { return float64(r.pending()) })
	register.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apigw_guardian_audit_spool_bytes",
		Help: "Size of the local spool.",
	}, func() float64 { return float64(r.spoolBytes()) })
	return &metrics{
		events: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_facts_total",
			Help: "Events counted into audit records, by where they were safe when the guard answered (apiserver, spool, memory).",
		}, []string{"safe_in"}),
		writes: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_record_writes_total",
			Help: "Attempts to store an audit record in the API server, by result (stored, failed).",
		}, []string{"result"}),
		lost: register.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_lost_total",
			Help: "Events that are in no audit record and in no spool, only in the log.",
		}),
		flood: register.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_flood_total",
			Help: "Events that share an audit record with different ones because new records came too fast.",
		}),
		altered: register.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_altered_total",
			Help: "Audit records that another client altered, deleted or prepared, and that were stored again under another name.",
		}),
	}
}

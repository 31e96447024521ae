// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// maxMoves bounds how many records another client can make of one by altering each.
const maxMoves = 8

// Run stores records until ctx ends, and then tries to store the rest for FlushTimeout. What remains stays in the spool for
// the next process. Call Run once, and do not call Record after ctx has ended.
func (r *Recorder) Run(ctx context.Context) {
	// Attempts continue after ctx has ended, so that the last events are stored too.
	storing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() { r.work(storing) })
	}
	if r.options.Mode == Batch {
		group.Go(func() { r.keepSynced(ctx) })
	}
	wait.UntilWithContext(ctx, func(context.Context) {
		r.evict(time.Now())
		r.emptySpool()
	}, cleanupInterval)
	r.flush(storing)
	r.queue.ShutDown()
	stop()
	group.Wait()
	r.end()
}

// keepSynced syncs the spool again and again until ctx ends. It logs the first of several failures.
func (r *Recorder) keepSynced(ctx context.Context) {
	failing := false
	wait.UntilWithContext(ctx, func(context.Context) {
		err := r.spool.syncAll()
		if err != nil && !failing {
			r.options.Log.Error("failed to sync the spool: events that are not stored yet are lost if the node dies", slog.Any("err", err))
		}
		failing = err != nil
	}, syncInterval)
}

// work stores records until the queue is shut down. The queue never hands out one record twice at the same time.
func (r *Recorder) work(ctx context.Context) {
	for {
		p, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.store(ctx, p)
		r.queue.Done(p)
	}
}

func (r *Recorder) store(ctx context.Context, p *pending) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	for {
		record, last, upTo := r.snapshot(p)
		if record == nil {
			r.queue.Forget(p)
			return
		}
		stored, err := r.options.Store.Merge(ctx, record, last)
		if err == nil {
			err = checkCount(stored, p.replica, upTo)
		}
		switch {
		case err == nil:
			r.stored(p, upTo, stored)
			// Another replica announces the records that it has created.
			if last == nil && stored.Generation <= 1 && r.options.Announce != nil {
				r.options.Announce(stored)
			}
			return
		case !errors.Is(err, audit.ErrAltered) || !r.moveOn(p, err):
			r.failed(p, upTo, err)
			return
		}
	}
}

// checkCount compares this process's count in the stored record with its own: a count that is too high would hide later events.
func checkCount(stored *v1alpha1.AuditRecord, replica string, upTo int64) error {
	if found := audit.CountOf(stored, replica); found != upTo {
		return fmt.Errorf("store audit record %q: %w: it counts %d for %q, which has counted %d",
			stored.Name, audit.ErrAltered, found, replica, upTo)
	}
	return nil
}

// moveOn stores the record under a second name after another client has altered the first. It returns false after maxMoves.
func (r *Recorder) moveOn(p *pending, err error) bool {
	r.metrics.altered.Inc()
	r.options.Log.Error("another client altered an audit record, storing it under another name", slog.Any("err", err))
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.moves >= maxMoves {
		return false
	}
	p.moveOn()
	return true
}

// snapshot returns nil for a record that neither waits nor is due for its check.
func (r *Recorder) snapshot(p *pending) (record, last *v1alpha1.AuditRecord, upTo int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.waits() && !p.due(time.Now()) {
		return nil, nil, 0
	}
	return p.record.DeepCopy(), p.last, p.counted
}

func (r *Recorder) failed(p *pending, upTo int64, err error) {
	r.metrics.writes.WithLabelValues(resultFailed).Inc()
	// An invalid record, or one that is altered repeatedly, says nothing about the others.
	if apierrors.IsInvalid(err) || errors.Is(err, audit.ErrAltered) {
		r.options.Log.Error("failed to store audit record", slog.Any("err", err))
	} else {
		r.setUnavailable(err)
	}
	r.mu.Lock()
	waits := p.finish(nil, upTo)
	r.mu.Unlock()
	if waits {
		r.queue.AddRateLimited(p)
	}
}

func (r *Recorder) stored(p *pending, upTo int64, stored *v1alpha1.AuditRecord) {
	r.metrics.writes.WithLabelValues(resultStored).Inc()
	r.mu.Lock()
	waits := p.finish(stored, upTo)
	r.mu.Unlock()
	r.queue.Forget(p)
	r.setStoring()
	if waits {
		r.enqueue(p, false)
	}
}

// outage is why records cannot be stored, and since when.
type outage struct {
	since  time.Time
	reason string
}

const (
	// maxProblem bounds the text of a problem, which goes into an annotation.
	maxProblem = 512
	// problemAfter is how long an outage lasts before it is a problem. The restart of an API server is none.
	problemAfter = 10 * time.Second
)

// Problem says why records cannot be stored, or returns "".
func (r *Recorder) Problem() string {
	if o := r.outage.Load(); o != nil && time.Since(o.since) >= problemAfter {
		return o.reason
	}
	return ""
}

// setUnavailable begins an outage, which lasts until a record is stored.
func (r *Recorder) setUnavailable(err error) {
	begun := &outage{since: time.Now(), reason: text.Printable(err.Error(), maxProblem)}
	if r.outage.CompareAndSwap(nil, begun) {
		r.options.Log.Warn("failed to store audit records, they wait in the spool or in memory", slog.Any("err", err))
	}
}

// setStoring ends an outage, and tries all waiting records at once.
func (r *Recorder) setStoring() {
	if r.outage.Swap(nil) == nil {
		return
	}
	waiting := r.waiting()
	r.options.Log.Info("audit records can be stored again", slog.Int("count", len(waiting)))
	for _, p := range waiting {
		r.queue.Add(p)
	}
}

// evict removes records that are stored and get no further event. Each is checked first: another client may have altered it.
func (r *Recorder) evict(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.records)
	for name, p := range r.records {
		switch {
		case p.waits() || !p.over(now):
		case p.checked:
			delete(r.records, name)
			p.release()
		default:
			r.queue.Add(p)
		}
	}
	if len(r.records) < before {
		r.evictions++
	}
}

func (r *Recorder) emptySpool() {
	if r.spool == nil {
		return
	}
	if err := r.spool.emptyIf(func() bool { return r.pending() == 0 }); err != nil {
		r.options.Log.Warn("failed to empty the spool", slog.Any("err", err))
	}
}

// flush tries to store all waiting records once more.
func (r *Recorder) flush(ctx context.Context) {
	for _, p := range r.waiting() {
		r.queue.Add(p)
	}
	// An error is the time-out.
	_ = wait.PollUntilContextTimeout(ctx, firstRetry, FlushTimeout, true, func(context.Context) (bool, error) {
		return r.pending() == 0, nil
	})
}

// end closes the spool, and counts the events that are neither stored nor spooled.
func (r *Recorder) end() {
	r.emptySpool()
	if r.spool != nil {
		if err := r.compactSpool(); err != nil {
			r.options.Log.Warn("failed to compact the spool", slog.Any("err", err))
			_ = r.spool.syncAll() // keepSynced has logged what fails
		}
		_ = r.spool.close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := int64(0)
	for _, p := range r.records {
		lost += p.unsafe()
	}
	if lost > 0 {
		r.metrics.lost.Add(float64(lost))
		r.options.Log.Error("lost events: they are in no audit record and in no spool, only in the log", slog.Int64("count", lost))
	}
}

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
	m := &metrics{
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
	for _, place := range []string{placeStore, placeSpool, placeMemory} {
		m.events.WithLabelValues(place) // from zero on, so that the first event is an increase
	}
	for _, result := range []string{resultStored, resultFailed} {
		m.writes.WithLabelValues(result)
	}
	return m
}

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

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// maxMoves bounds how many records another client can make of one by altering each.
const maxMoves = 8

// Run stores records until ctx ends, and then tries for FlushTimeout to store the rest. What it cannot store stays in the
// spool, for the next process. Run it once; Record must not be called any more when ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	// Attempts go on after ctx has ended, or the last facts would be cut off.
	storing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() { r.work(storing) })
	}
	r.keepHouse(ctx)
	r.flush(storing)
	r.queue.ShutDown()
	stop()
	group.Wait()
	r.end()
}

// work stores one record after the other. The queue never hands out one record twice at the same time.
func (r *Recorder) work(ctx context.Context) {
	for {
		name, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.store(ctx, name)
		r.queue.Done(name)
	}
}

func (r *Recorder) store(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	for {
		record, last, upTo := r.snapshot(name)
		if record == nil {
			r.queue.Forget(name)
			return
		}
		stored, err := r.options.Store.Merge(ctx, record, last)
		if err == nil {
			err = r.compare(name, stored, upTo)
		}
		if errors.Is(err, audit.ErrAltered) && r.moveOn(name, err) {
			continue
		}
		r.finish(name, stored, upTo, err)
		if err == nil && last == nil && r.options.Announce != nil {
			r.options.Announce(record)
		}
		return
	}
}

func (r *Recorder) finish(name string, stored *v1alpha1.AuditRecord, upTo int64, err error) {
	if err != nil {
		r.metrics.writes.WithLabelValues(resultFailed).Inc()
		r.failed(name, upTo, err)
		return
	}
	r.metrics.writes.WithLabelValues(resultStored).Inc()
	r.stored(name, upTo, stored)
}

// compare holds this process's count in the stored record against what it has counted: nobody else counts under its name, and
// a count that is too high would swallow what comes next.
func (r *Recorder) compare(name string, stored *v1alpha1.AuditRecord, upTo int64) error {
	r.mu.Lock()
	replica := r.entries[name].replica
	r.mu.Unlock()
	if found := audit.CountOf(stored, replica); found != upTo {
		return fmt.Errorf("store audit record %q: %w: it counts %d for %q, which has counted %d",
			stored.Name, audit.ErrAltered, found, replica, upTo)
	}
	return nil
}

// moveOn counts an altered record, and lets what it held go into a second one. It reports whether there may be one more.
func (r *Recorder) moveOn(name string, err error) bool {
	r.metrics.altered.Inc()
	r.options.Log.Error("an audit record was altered, and is stored again under another name",
		slog.String("name", name), slog.Any("err", err))
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if e.moves >= maxMoves {
		return false
	}
	e.moveOn()
	return true
}

// snapshot returns nothing for a record that neither waits nor is to be checked.
func (r *Recorder) snapshot(name string) (record, last *v1alpha1.AuditRecord, upTo int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if e == nil || !e.waits() && !e.due(time.Now()) {
		return nil, nil, 0
	}
	return e.record.DeepCopy(), e.last, e.counted
}

func (r *Recorder) failed(name string, upTo int64, err error) {
	// A record that the API server refuses for what it is, or that is altered again and again, says nothing about the others.
	if apierrors.IsInvalid(err) || errors.Is(err, audit.ErrAltered) {
		r.options.Log.Error("the API server refuses an audit record", slog.String("name", name), slog.Any("err", err))
	} else {
		r.setDown(err)
	}
	r.mu.Lock()
	waits := r.entries[name].finish(nil, upTo)
	r.mu.Unlock()
	if waits {
		r.queue.AddRateLimited(name)
	}
}

func (r *Recorder) stored(name string, upTo int64, stored *v1alpha1.AuditRecord) {
	r.mu.Lock()
	more := r.entries[name].finish(stored, upTo)
	r.mu.Unlock()
	r.queue.Forget(name)
	r.setUp()
	if more {
		r.enqueue(name, false)
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
	// problemAfter is how long records cannot be stored before that is a problem: an API server that restarts is none.
	problemAfter = 10 * time.Second
)

// Problem says why records cannot be stored, for some time already; "" where they can.
func (r *Recorder) Problem() string {
	if o := r.outage.Load(); o != nil && time.Since(o.since) >= problemAfter {
		return o.reason
	}
	return ""
}

// setDown lets answers wait for the spool only, until a record has been stored.
func (r *Recorder) setDown(err error) {
	if !r.down.Swap(true) {
		r.outage.Store(&outage{since: time.Now(), reason: text.Printable(err.Error(), maxProblem)})
		r.options.Log.Warn("audit records cannot be stored now; they wait, in the spool if there is one", slog.Any("err", err))
	}
}

// setUp brings on all that has waited for a retry.
func (r *Recorder) setUp() {
	if !r.down.Swap(false) {
		return
	}
	r.outage.Store(nil)
	waiting := r.waiting()
	r.options.Log.Info("audit records can be stored again", slog.Int("count", len(waiting)))
	for _, name := range waiting {
		r.queue.Add(name)
	}
}

func (r *Recorder) keepHouse(ctx context.Context) {
	ticker := time.NewTicker(housekeepingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			r.forgetOver(now)
			r.emptySpool()
		}
	}
}

// forgetOver drops records that are stored and get no further fact, once the stored ones have been looked at.
func (r *Recorder) forgetOver(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.entries)
	for name, e := range r.entries {
		switch {
		case e.waits() || !now.After(e.ends.Add(housekeepingInterval)):
		case e.checked:
			r.drop(name, e)
		default:
			r.queue.Add(name)
		}
	}
	if len(r.entries) < before {
		r.forgotten++
	}
}

func (r *Recorder) drop(name string, e *entry) {
	delete(r.entries, name)
	if e.budget != nil {
		e.budget.release(e)
	}
}

func (r *Recorder) emptySpool() {
	if r.spool == nil {
		return
	}
	if err := r.spool.emptyIf(func() bool { return r.pending() == 0 }); err != nil {
		r.options.Log.Warn("cannot empty the spool", slog.Any("err", err))
	}
}

// flush tries to store all that waits, once more each, and waits for that.
func (r *Recorder) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, FlushTimeout)
	defer cancel()
	for _, name := range r.waiting() {
		r.queue.Add(name)
	}
	ticker := time.NewTicker(firstRetry)
	defer ticker.Stop()
	for r.pending() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// end gives the spool back, and says what is lost: what is neither stored nor in the spool.
func (r *Recorder) end() {
	r.emptySpool()
	if r.spool != nil {
		if err := r.compactSpool(); err != nil {
			r.options.Log.Warn("cannot compact the spool", slog.Any("err", err))
		}
		_ = r.spool.close() // every line is on the disk
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := int64(0)
	for _, e := range r.entries {
		lost += e.unsafe()
	}
	if lost > 0 {
		r.metrics.lost.Add(float64(lost))
		r.options.Log.Error("writes are in no audit record and in no spool: only the log has them", slog.Int64("count", lost))
	}
}

// pending is how many records wait to be stored.
func (r *Recorder) pending() int { return len(r.waiting()) }

func (r *Recorder) spoolBytes() int64 {
	if r.spool == nil {
		return 0
	}
	return r.spool.bytes()
}

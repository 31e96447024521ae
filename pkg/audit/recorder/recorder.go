// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package recorder counts events into audit records. Before the guard answers, each event is in the API server or in a spool on disk.
package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Mode says what an answer waits for.
type Mode string

const (
	// Blocking waits until the record is stored in the API server. After blockingTimeout, it does what Durable does.
	Blocking Mode = "blocking"
	// Durable waits until the record is on the disk. A record is stored about once in a batchInterval.
	Durable Mode = "durable"
	// Batch waits until the record is written to the spool, which outlives the process. A node that dies loses what was written
	// since the last sync, at most a syncInterval before. A record is stored about once in a batchInterval.
	Batch Mode = "batch"
)

const (
	// blockingTimeout bounds how long an answer waits for the API server.
	blockingTimeout = 500 * time.Millisecond
	// batchInterval is how long Durable and Batch gather events before they store them.
	batchInterval = time.Second
	// syncInterval is how often Batch syncs the spool.
	syncInterval = 100 * time.Millisecond
	// attemptTimeout bounds one attempt to store a record.
	attemptTimeout = 5 * time.Second
	// workers is how many records are stored at the same time: 32 callers with a record each wait for two rounds at most.
	workers = 16
	// cleanupInterval is how often finished records are evicted, and an idle spool is emptied.
	cleanupInterval = 5 * time.Second
	// firstRetry and lastRetry bound the pause before the next attempt to store a record.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// FlushTimeout bounds the last attempts when the recorder ends.
	FlushTimeout = 5 * time.Second
)

// Store keeps records in the API server.
type Store interface {
	// Merge adds the counts of record to the record of that name. last is the result of the previous Merge, or nil.
	// The error wraps audit.ErrAltered if another client has made the name unusable. After any other error the record may or
	// may not be stored, and the same call may be repeated.
	Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error)
}

// Options configure a Recorder. Store, Mode, Replica, Registry and Log are required.
type Options struct {
	Store Store
	Mode  Mode
	// SpoolDir is a directory that no other process uses. If it is empty there is no spool, which only Blocking allows.
	SpoolDir string
	// SpoolVolume is the size of the volume of SpoolDir, in bytes. The spool fills half of it, and while it is compacted three
	// quarters. Zero means 64 MiB.
	SpoolVolume int64
	// Replica names this process. No other process has had the name.
	Replica string
	// Announce, if set, is called after this process has created a record, with the record as stored. It must not block or change it.
	Announce func(*v1alpha1.AuditRecord)
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Modes are the modes, the safest first.
func Modes() []Mode { return []Mode{Blocking, Durable, Batch} }

// NeedsSpool reports whether an answer waits for the spool.
func (m Mode) NeedsSpool() bool { return m != Blocking }

// Recorder records events. It stores records while Run runs. It is safe for concurrent use.
type Recorder struct {
	options Options
	spool   *spool // nil for none
	metrics *metrics
	queue   workqueue.TypedRateLimitingInterface[*pending]
	// outage is nil while records can be stored. During an outage, answers do not wait for the API server.
	outage atomic.Pointer[outage]

	mu sync.Mutex
	// records has the records in memory by the name of their first record.
	records map[string]*pending
	// Events of unverified callers have their own budget.
	budget, unverified *budget
	// evictions is how often records were evicted.
	evictions int
}

// New opens and locks the spool until Run ends, and reads the records that an earlier process has left in it.
func New(options Options) (*Recorder, error) {
	if options.Mode.NeedsSpool() && options.SpoolDir == "" {
		return nil, fmt.Errorf("recorder mode %s needs a spool directory", options.Mode)
	}
	r := &Recorder{
		options: options,
		records: map[string]*pending{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[*pending](firstRetry, lastRetry)),
		budget:     newBudget(1),
		unverified: newBudget(unverifiedPart),
	}
	r.metrics = newMetrics(options.Registry, r)
	return r, r.openSpool()
}

func (r *Recorder) openSpool() error {
	if r.options.SpoolDir == "" {
		return nil
	}
	opened, records, broken, err := openSpool(r.options.SpoolDir, cmp.Or(r.options.SpoolVolume/volumePart, maxSpoolBytes))
	if err != nil {
		return err
	}
	r.spool = opened
	for _, record := range records {
		r.restore(record)
	}
	if broken > 0 {
		r.options.Log.Warn("ignored lines of the spool that cannot be parsed", slog.Int("count", broken))
	}
	if len(r.records) > 0 {
		r.options.Log.Info("read the spool of an earlier process", slog.Int("count", len(r.records)))
	}
	return nil
}

func (r *Recorder) restore(record *v1alpha1.AuditRecord) {
	if p := r.records[record.Name]; p != nil {
		audit.Merge(p.record, record)
		return
	}
	p := newPending(record, r.replica())
	p.restored = true
	r.records[record.Name] = p
	r.queue.Add(p)
}

// Record counts the event and returns the name of its record. It returns once the event is stored or spooled, or neither is
// possible: then only the log has it. It takes at most blockingTimeout and a write to the spool.
func (r *Recorder) Record(ctx context.Context, event audit.Event) string {
	p, number := r.count(&event)
	r.metrics.events.WithLabelValues(r.makeSafe(ctx, p, number)).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.record.Name // a second name, if another client has altered the first record
}

// count returns the pending record and the event's number in it.
func (r *Recorder) count(event *audit.Event) (*pending, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	event, p := r.pendingFor(event)
	waited := p.waits()
	p.ends = event.Ends() // a restored record does not know it
	p.count(event)
	r.enqueue(p, waited)
	return p, p.counted
}

// pendingFor returns the record for the event, and the event as that record counts it: a reduced one during a flood.
func (r *Recorder) pendingFor(event *audit.Event) (*audit.Event, *pending) {
	b := r.budgetOf(event.Caller)
	if p := r.pendingOf(event, event, b.allowRecord); p != nil {
		return event, p
	}
	r.metrics.flood.Inc()
	flooded := event.FloodedByUser()
	if p := r.pendingOf(&flooded, event, b.allowUserFlood); p != nil {
		return &flooded, p
	}
	flooded = event.FloodedOfUser()
	if p := r.pendingOf(&flooded, event, b.allowUser); p != nil {
		return &flooded, p
	}
	flooded = event.Flooded()
	return &flooded, r.pendingOf(&flooded, nil, nil)
}

// pendingOf returns the record that counts an event. It returns nil if there is none and the budget allows none. origin is
// the event before a reduction, or nil for a record without a user, which is always allowed.
func (r *Recorder) pendingOf(counted, origin *audit.Event, allowed func(*audit.Event) bool) *pending {
	name := counted.Name()
	if p := r.records[name]; p != nil {
		return p
	}
	if origin != nil && !allowed(origin) {
		return nil
	}
	replica := r.replica()
	p := newPending(counted.Record(replica, 1), replica)
	var user *string
	if origin != nil {
		user = new(origin.UserKey())
	}
	r.budgetOf(counted.Caller).hold(p, user)
	r.records[name] = p
	return p
}

func (r *Recorder) budgetOf(caller v1alpha1.Caller) *budget {
	if caller == v1alpha1.CallerUnverified {
		return r.unverified
	}
	return r.budget
}

// replica is the name for a new record. It changes when records are evicted: if the clock is set back, an evicted record
// returns, and must not count from one again under the same name.
func (r *Recorder) replica() string {
	if r.evictions == 0 {
		return r.options.Replica
	}
	return r.options.Replica + "." + strconv.Itoa(r.evictions)
}

// enqueue schedules an attempt, at once or after the batch interval. A record that waited is in the queue.
func (r *Recorder) enqueue(p *pending, waited bool) {
	switch {
	case r.options.Mode == Blocking && r.outage.Load() == nil:
		r.queue.Add(p)
	case !waited:
		r.queue.AddAfter(p, batchInterval)
	}
}

// makeSafe returns the place where the event is safe.
func (r *Recorder) makeSafe(ctx context.Context, p *pending, number int64) string {
	if r.options.Mode == Blocking && r.awaitStored(ctx, p, number) {
		return placeStore
	}
	if r.spool == nil {
		return placeMemory
	}
	if err := r.addToSpool(p); err != nil {
		r.options.Log.Error("failed to store or spool an event, only the log has it", slog.Any("err", err))
		return placeMemory
	}
	return placeSpool
}

// awaitStored reports whether the event is stored. It does not wait during an outage.
func (r *Recorder) awaitStored(ctx context.Context, p *pending, number int64) bool {
	timeout := time.After(blockingTimeout)
	for {
		r.mu.Lock()
		stored, attempt := p.stored >= number, p.attempt
		r.mu.Unlock()
		if stored || r.outage.Load() != nil {
			return stored
		}
		select {
		case <-attempt.ended:
			if attempt.failed {
				return false
			}
		case <-timeout:
			r.setUnavailable(fmt.Errorf("the API server takes more than %s", blockingTimeout))
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// addToSpool writes the record with all counts that it has now. Only Batch does not wait for the disk.
func (r *Recorder) addToSpool(p *pending) error {
	r.mu.Lock()
	record, counted := p.record.DeepCopy(), p.counted
	r.mu.Unlock()
	line, err := r.spool.write(encode(record))
	if errors.Is(err, errSpoolFull) {
		return r.compactSpool()
	}
	if err == nil && r.options.Mode != Batch {
		err = r.spool.sync(line)
	}
	if err == nil {
		r.setSpooled(map[*pending]int64{p: counted})
	}
	return err
}

// compactSpool keeps only the records in the spool that are not stored.
func (r *Recorder) compactSpool() error {
	counted := map[*pending]int64{}
	err := r.spool.compact(func() (records []*v1alpha1.AuditRecord) {
		waiting := r.waiting()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range waiting {
			records, counted[p] = append(records, p.record.DeepCopy()), p.counted
		}
		return records
	})
	if err == nil {
		r.setSpooled(counted)
	}
	return err
}

func (r *Recorder) setSpooled(counted map[*pending]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, n := range counted {
		p.spooled = max(p.spooled, n)
	}
}

// waiting returns the records with counts that are not stored.
func (r *Recorder) waiting() []*pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	var waiting []*pending
	for _, p := range r.records {
		if p.waits() {
			waiting = append(waiting, p)
		}
	}
	return waiting
}

func (r *Recorder) pending() int { return len(r.waiting()) }

func (r *Recorder) spoolBytes() int64 {
	if r.spool == nil {
		return 0
	}
	return r.spool.bytes()
}

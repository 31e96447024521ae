// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package recorder sees to it that no fact is lost: it counts facts into audit records, and keeps each safe, in the API
// server or in a spool on the local disk, before the answer goes out.
package recorder

import (
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
	// Blocking waits until the record is stored in the API server, or for BlockingTimeout, and then as Batch does.
	Blocking Mode = "blocking"
	// Batch waits for the spool only; records are stored about once in a BatchInterval.
	Batch Mode = "batch"
)

const (
	// BlockingTimeout bounds what an answer waits for the API server.
	BlockingTimeout = 500 * time.Millisecond
	// BatchInterval is how long Batch gathers facts before it stores them.
	BatchInterval = time.Second

	// attemptTimeout bounds one attempt to store a record.
	attemptTimeout = 5 * time.Second
	// workers is how many records are stored at the same time: enough that 32 callers with records of their own wait for two
	// rounds at most, and few for an API server.
	workers = 16
	// housekeepingInterval is how often records that are over leave the memory, and an idle spool is emptied.
	housekeepingInterval = 5 * time.Second
	// firstRetry and lastRetry bound the pause before a record that could not be stored is tried again.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// FlushTimeout bounds the last attempts when the recorder ends.
	FlushTimeout = 5 * time.Second
)

// errSlow says that an answer has waited for the API server for as long as it may.
var errSlow = errors.New("the API server takes more than " + BlockingTimeout.String())

// ErrInvalidOptions says that a recorder cannot work with its Options.
var ErrInvalidOptions = errors.New("invalid recorder options")

// Store keeps records in the API server.
type Store interface {
	// Merge stores what record knows besides what is stored under its name; last is what the Merge before has returned, or nil.
	// It wraps audit.ErrAltered where another client has made the name unusable. After any other error nobody knows whether
	// the record was stored: the same call may be repeated.
	Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error)
}

// Options are what a Recorder works with.
type Options struct {
	Store Store
	Mode  Mode
	// SpoolDir is a folder of this process alone; empty for no spool, which Batch does not allow. SpoolBytes bounds it; zero
	// means SpoolBytes of this package.
	SpoolDir   string
	SpoolBytes int64
	// Replica names this process, from its start to its end: no other one ever had the name.
	Replica string
	// Announce is called after a record has been stored for the first time by this process; it must not block. It may be nil.
	Announce func(*v1alpha1.AuditRecord)
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Recorder records facts. New makes one; Run must run for records to be stored. It is safe for concurrent use.
type Recorder struct {
	options Options
	spool   *spool // nil for none
	metrics *metrics
	queue   workqueue.TypedRateLimitingInterface[string]
	// down says that the last attempt to store a record has failed: answers do not wait for the next.
	down   atomic.Bool
	outage atomic.Pointer[outage] // nil while they can be stored

	mu      sync.Mutex
	entries map[string]*entry
	// budget bounds the entries. Reviews of callers that are not verified have their own.
	budget, unverified *budget
	// forgotten is how often entries have left the memory.
	forgotten int
}

// New opens the spool, takes up what a former process has left in it, and locks it until Run ends. The error wraps
// ErrInvalidOptions, ErrSpoolInUse, or is the disk's.
func New(options Options) (*Recorder, error) {
	switch {
	case options.Mode != Blocking && options.Mode != Batch:
		return nil, fmt.Errorf("%w: mode %q: it is blocking or batch", ErrInvalidOptions, options.Mode)
	case options.Mode == Batch && options.SpoolDir == "":
		return nil, fmt.Errorf("%w: mode batch answers once a fact is in the spool: name a spool folder", ErrInvalidOptions)
	}
	if options.SpoolBytes == 0 {
		options.SpoolBytes = SpoolBytes
	}
	r := &Recorder{
		options: options,
		entries: map[string]*entry{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
		budget:     newBudget(1),
		unverified: newBudget(unverifiedPart),
	}
	var err error
	if r.metrics, err = newMetrics(options.Registry, r); err != nil {
		return nil, err
	}
	return r, r.openSpool()
}

func (r *Recorder) openSpool() error {
	if r.options.SpoolDir == "" {
		return nil
	}
	opened, records, broken, err := openSpool(r.options.SpoolDir, r.options.SpoolBytes)
	if err != nil {
		return err
	}
	r.spool = opened
	for _, record := range records {
		r.takeUp(record)
	}
	if broken > 0 {
		r.options.Log.Warn("lines of the spool cannot be read, and are left out", slog.Int("count", broken))
	}
	if len(r.entries) > 0 {
		r.options.Log.Info("took up the spool of a former process", slog.Int("count", len(r.entries)))
	}
	return nil
}

// takeUp merges a line of the spool.
func (r *Recorder) takeUp(record *v1alpha1.AuditRecord) {
	e := r.entries[record.Name]
	if e == nil {
		r.entries[record.Name] = newEntry(record, r.replica())
		r.entries[record.Name].left = true
		r.queue.Add(record.Name)
		return
	}
	audit.Merge(e.record, record)
}

// Record counts the fact, and returns the name of its record once the fact is safe, or nothing more can be done for it but
// what the log has. It takes no longer than BlockingTimeout and a write to the disk.
func (r *Recorder) Record(ctx context.Context, fact audit.Event) string {
	t := r.count(&fact)
	place := r.keepSafe(ctx, t)
	r.metrics.facts.WithLabelValues(place).Inc()
	return r.nameOf(t)
}

// nameOf is the name of the record that counts the fact now: a second one, where another client has altered the first.
func (r *Recorder) nameOf(t ticket) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.entry.record.Name
}

// ticket is what a counted fact is waited for by.
type ticket struct {
	name  string
	entry *entry
	// number is the fact's place in the entry's count.
	number int64
}

func (r *Recorder) count(fact *audit.Event) ticket {
	r.mu.Lock()
	defer r.mu.Unlock()
	fact, name, e := r.entryFor(fact)
	waited := e.waits()
	e.ends = fact.Ends() // an entry out of the spool does not know
	e.count(fact)
	r.enqueue(name, waited)
	return ticket{name: name, entry: e, number: e.counted}
}

// entryFor returns the entry that counts the fact, and the fact as that entry counts it: the fact itself, or what a flood
// leaves of it.
func (r *Recorder) entryFor(fact *audit.Event) (*audit.Event, string, *entry) {
	b := r.budgetOf(fact.Caller)
	if name, e := r.entryOf(fact, fact, b.allowRecord); e != nil {
		return fact, name, e
	}
	r.metrics.flood.Inc()
	flooded := fact.FloodedByUser()
	if name, e := r.entryOf(&flooded, fact, b.allowUserFlood); e != nil {
		return &flooded, name, e
	}
	flooded = fact.FloodedOfUser()
	if name, e := r.entryOf(&flooded, fact, b.allowUser); e != nil {
		return &flooded, name, e
	}
	flooded = fact.Flooded()
	name, e := r.entryOf(&flooded, nil, nil)
	return &flooded, name, e
}

// entryOf returns the entry that counts a fact, and nil where there is none and none is allowed. origin is what the fact was
// before a flood; nil where the record is to name no user, which is always allowed.
func (r *Recorder) entryOf(counted, origin *audit.Event, allowed func(*audit.Event) bool) (string, *entry) {
	name := counted.Name()
	if e := r.entries[name]; e != nil {
		return name, e
	}
	if origin != nil && !allowed(origin) {
		return "", nil
	}
	replica := r.replica()
	e := newEntry(counted.Record(replica, 1), replica)
	var user *string
	if origin != nil {
		user = new(origin.UserKey())
	}
	r.budgetOf(counted.Caller).hold(e, user)
	r.entries[name] = e
	return name, e
}

func (r *Recorder) budgetOf(caller v1alpha1.Caller) *budget {
	if caller == v1alpha1.CallerUnverified {
		return r.unverified
	}
	return r.budget
}

// replica is the name for a new entry. It is another one after entries have been forgotten: should a clock that is set back
// bring a record back, it must not be counted from one again under the name that has counted it before.
func (r *Recorder) replica() string {
	if r.forgotten == 0 {
		return r.options.Replica
	}
	return r.options.Replica + "." + strconv.Itoa(r.forgotten)
}

// enqueue has the record stored: at once, or with others that come soon. One that waits already is in the queue.
func (r *Recorder) enqueue(name string, waited bool) {
	switch {
	case r.options.Mode == Blocking && !r.down.Load():
		r.queue.Add(name)
	case !waited:
		r.queue.AddAfter(name, BatchInterval)
	}
}

// keepSafe returns the place where the fact is safe.
func (r *Recorder) keepSafe(ctx context.Context, t ticket) string {
	if r.options.Mode == Blocking && r.awaitStored(ctx, t) {
		return placeStore
	}
	if r.spool == nil {
		return placeMemory
	}
	if err := r.addToSpool(t); err != nil {
		r.options.Log.Error("an audit record is neither stored nor in the spool: the log has its facts",
			slog.String("name", t.name), slog.Any("err", err))
		return placeMemory
	}
	return placeSpool
}

// awaitStored reports whether the fact is stored. It does not wait while records cannot be stored.
func (r *Recorder) awaitStored(ctx context.Context, t ticket) bool {
	timeout := time.NewTimer(BlockingTimeout)
	defer timeout.Stop()
	for {
		stored, attempt := r.look(t)
		if stored || r.down.Load() {
			return stored
		}
		select {
		case <-attempt.ended:
			if attempt.failed {
				return false
			}
		case <-timeout.C:
			r.setDown(errSlow)
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Recorder) look(t ticket) (stored bool, next *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.entry.stored >= t.number, t.entry.attempt
}

// addToSpool writes the record as it counts now, which is no less than when the fact was counted.
func (r *Recorder) addToSpool(t ticket) error {
	r.mu.Lock()
	record, counted := t.entry.record.DeepCopy(), t.entry.counted
	r.mu.Unlock()
	err := r.spool.add(record)
	if errors.Is(err, errSpoolFull) {
		return r.compactSpool()
	}
	if err == nil {
		r.mu.Lock()
		t.entry.spooled = max(t.entry.spooled, counted)
		r.mu.Unlock()
	}
	return err
}

// compactSpool leaves in the spool only what waits to be stored, all of it.
func (r *Recorder) compactSpool() error {
	counted := map[*entry]int64{}
	err := r.spool.compact(func() []*v1alpha1.AuditRecord {
		r.mu.Lock()
		defer r.mu.Unlock()
		var waiting []*v1alpha1.AuditRecord
		for _, e := range r.entries {
			if e.waits() {
				waiting, counted[e] = append(waiting, e.record.DeepCopy()), e.counted
			}
		}
		return waiting
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for e, n := range counted {
		e.spooled = max(e.spooled, n)
	}
	return nil
}

// waiting returns the names of the records that are not stored as they count.
func (r *Recorder) waiting() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, e := range r.entries {
		if e.waits() {
			names = append(names, name)
		}
	}
	return names
}

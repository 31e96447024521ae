// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Feed holds the records of the page. Another package reads the cluster and calls its methods. It is safe for concurrent use.
type Feed struct {
	mu      sync.Mutex
	records map[string]*v1alpha1.AuditRecord
	now     signal
	// sorted is nil after a change, until a request needs it.
	sorted *snapshot
	// changed is closed at the next change.
	changed chan struct{}
}

// snapshot is an immutable state of the feed.
type snapshot struct {
	// records are sorted, the newest first.
	records []v1alpha1.AuditRecord
	choices choices
	signal  signal
}

// signal tells the page that the feed has changed.
type signal struct {
	// Revision grows with each change.
	Revision uint64 `json:"revision"`
	// Lost says why the cluster cannot be read, or is empty.
	Lost string `json:"lost"`
	// Guard is the state of the guard as far as the reader may know it.
	Guard Guard `json:"guard"`
}

// Guard says whether the guard runs.
type Guard struct {
	// State is GuardUp, GuardDown or GuardUnknown; "" before the first answer.
	State string `json:"state"`
	// Text is a sentence about it.
	Text string `json:"text"`
}

// States of the guard.
const (
	GuardUp      = "up"
	GuardDown    = "down"
	GuardUnknown = "unknown"
)

// choices are the words of the records that the filter offers.
type choices struct {
	Outcomes   []string `json:"outcomes"`
	Operations []string `json:"operations"`
	Reasons    []string `json:"reasons"`
}

// NewFeed returns a feed without records.
func NewFeed() *Feed {
	return &Feed{records: map[string]*v1alpha1.AuditRecord{}, changed: make(chan struct{})}
}

// Changed adds or replaces a record, which must not be changed afterwards.
func (f *Feed) Changed(record *v1alpha1.AuditRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[record.Name] = record
	f.announce()
}

// Removed removes a record.
func (f *Feed) Removed(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.records, name)
	f.announce()
}

// Reached takes nil if the cluster can be read, or the error.
func (f *Feed) Reached(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (err == nil) == (f.now.Lost == "") {
		return
	}
	f.now.Lost = ""
	if err != nil {
		f.now.Lost = err.Error()
	}
	f.announce()
}

// Guarded takes the state of the guard.
func (f *Feed) Guarded(guard Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now.Guard != guard {
		f.now.Guard = guard
		f.announce()
	}
}

// announce wakes the streams. The caller holds the lock.
func (f *Feed) announce() {
	f.now.Revision++
	f.sorted = nil
	close(f.changed)
	f.changed = make(chan struct{})
}

// signal returns the current signal, and a channel that is closed at the next change.
func (f *Feed) signal() (signal, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now, f.changed
}

func (f *Feed) record(name string) *v1alpha1.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[name]
}

// snapshot returns the current state. It sorts once per change.
func (f *Feed) snapshot() *snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sorted != nil {
		return f.sorted
	}
	records := make([]v1alpha1.AuditRecord, 0, len(f.records))
	for _, record := range f.records {
		records = append(records, *record)
	}
	records = audit.Newest(records, 0)
	f.sorted = &snapshot{records: records, choices: choicesOf(records), signal: f.now}
	return f.sorted
}

func choicesOf(records []v1alpha1.AuditRecord) choices {
	outcomes, operations, reasons := sets.New[string](), sets.New[string](), sets.New[string]()
	for i := range records {
		spec := &records[i].Spec
		outcomes.Insert(string(spec.Outcome))
		operations.Insert(string(spec.Operation))
		reasons.Insert(spec.Reason)
	}
	known := func(words sets.Set[string]) []string { return sets.List(words.Delete("")) }
	return choices{Outcomes: known(outcomes), Operations: known(operations), Reasons: known(reasons)}
}

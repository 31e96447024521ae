// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"slices"
	"sync"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Feed is the records that the page shows. Whoever follows the cluster's records tells it of them. It is safe for
// concurrent use; NewFeed makes one.
type Feed struct {
	mu      sync.Mutex
	records map[string]*v1alpha1.AuditRecord
	lost    error
	// now is what the page sees; nil after a change, until somebody looks.
	now      *moment
	revision uint64
	// changed is closed at the next change.
	changed chan struct{}
}

// moment is the feed at one moment. It does not change any more.
type moment struct {
	// records have the newest first.
	records []v1alpha1.AuditRecord
	choices choices
	signal  signal
}

// signal is what the page is told when the feed has changed: that it has.
type signal struct {
	// Revision grows with each change.
	Revision uint64 `json:"revision"`
	// Lost is why the cluster cannot be read; empty while it can be.
	Lost string `json:"lost"`
}

// choices are the words that occur in records, for the filter to choose from.
type choices struct {
	Outcomes   []string `json:"outcomes"`
	Operations []string `json:"operations"`
	Reasons    []string `json:"reasons"`
}

// NewFeed returns a feed without records.
func NewFeed() *Feed {
	return &Feed{records: map[string]*v1alpha1.AuditRecord{}, changed: make(chan struct{})}
}

// Changed puts a record in the place of the one of its name. The record must not be changed afterwards.
func (f *Feed) Changed(record *v1alpha1.AuditRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[record.Name] = record
	f.announce()
}

// Removed takes the record of that name away, if there is one.
func (f *Feed) Removed(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.records, name)
	f.announce()
}

// Reached says whether the cluster can be read: nil, or why it cannot.
func (f *Feed) Reached(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (err == nil) == (f.lost == nil) {
		return
	}
	f.lost = err
	f.announce()
}

// announce is called with the lock held.
func (f *Feed) announce() {
	f.revision++
	f.now = nil
	close(f.changed)
	f.changed = make(chan struct{})
}

// signal returns what to tell the page now, and a channel that is closed when there is something new to tell.
func (f *Feed) signal() (signal, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signalNow(), f.changed
}

func (f *Feed) signalNow() signal {
	now := signal{Revision: f.revision}
	if f.lost != nil {
		now.Lost = f.lost.Error()
	}
	return now
}

// record returns the record of that name, or nil.
func (f *Feed) record(name string) *v1alpha1.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[name]
}

// moment returns the feed as it is now. It sorts once for all who look between two changes.
func (f *Feed) moment() *moment {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		return f.now
	}
	records := make([]v1alpha1.AuditRecord, 0, len(f.records))
	for _, record := range f.records {
		records = append(records, *record)
	}
	audit.SortNewestFirst(records)
	f.now = &moment{records: records, choices: choicesOf(records), signal: f.signalNow()}
	return f.now
}

func choicesOf(records []v1alpha1.AuditRecord) choices {
	outcomes, operations, reasons := words{}, words{}, words{}
	for i := range records {
		spec := &records[i].Spec
		outcomes.add(string(spec.Outcome))
		operations.add(string(spec.Operation))
		reasons.add(spec.Reason)
	}
	return choices{Outcomes: outcomes.sorted(), Operations: operations.sorted(), Reasons: reasons.sorted()}
}

// words is a set of words.
type words map[string]bool

func (w words) add(word string) {
	if word != "" {
		w[word] = true
	}
}

// sorted is never nil: the page reads it as a list.
func (w words) sorted() []string {
	sorted := make([]string, 0, len(w))
	for word := range w {
		sorted = append(sorted, word)
	}
	slices.Sort(sorted)
	return sorted
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Feed holds the records of the page. Another package reads the clusters and calls the methods of their Sources. It is safe for
// concurrent use.
type Feed struct {
	mu sync.Mutex
	// records have their ids as keys. A record's namespace is the context of its cluster: a record itself has none.
	records  map[string]*v1alpha1.AuditRecord
	revision uint64
	clusters []clusterState
	// sorted is nil after a change, until a request needs it.
	sorted *snapshot
	// changed is closed at the next change.
	changed chan struct{}
}

// Source takes what is read from one cluster of a Feed.
type Source struct {
	feed *Feed
	// at is the position in clusters.
	at int
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
	// Lost says why the cluster cannot be read, or is empty. It and Guard are for a page of one cluster.
	Lost string `json:"lost"`
	// Guard is the state of the guard as far as the reader may know it.
	Guard Guard `json:"guard"`
	// Clusters is nil on a page of one cluster.
	Clusters []clusterState `json:"clusters,omitempty"`
}

// clusterState tells whether one of several clusters can be read.
type clusterState struct {
	Context string `json:"context"`
	// Answered is false before the first answer or error.
	Answered bool   `json:"answered"`
	Lost     string `json:"lost,omitempty"`
	Guard    Guard  `json:"guard"`
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

// NewFeed returns a feed without records, of the clusters of these contexts, or of one cluster if there is none.
func NewFeed(contexts ...string) *Feed {
	f := &Feed{records: map[string]*v1alpha1.AuditRecord{}, changed: make(chan struct{})}
	if len(contexts) == 0 {
		contexts = []string{""}
	}
	for _, name := range contexts {
		f.clusters = append(f.clusters, clusterState{Context: name})
	}
	return f
}

// Source returns that of the cluster at this position of the contexts.
func (f *Feed) Source(at int) Source { return Source{f, at} }

// idOf tells records of several clusters apart: a context may have a slash, and a name has none.
func idOf(context, name string) string {
	if context == "" {
		return name
	}
	return context + "/" + name
}

func (s Source) state() *clusterState { return &s.feed.clusters[s.at] }

// Changed adds or replaces a record, which must not be changed afterwards.
func (s Source) Changed(record *v1alpha1.AuditRecord) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	own := *record
	own.Namespace = s.state().Context
	s.feed.records[idOf(own.Namespace, own.Name)] = &own
	s.feed.announce()
}

// Removed removes a record.
func (s Source) Removed(name string) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.records, idOf(s.state().Context, name))
	s.feed.announce()
}

// Reached takes nil if the cluster can be read, or the error.
func (s Source) Reached(err error) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	state := s.state()
	if state.Answered && (err == nil) == (state.Lost == "") {
		return
	}
	state.Answered, state.Lost = true, ""
	if err != nil {
		state.Lost = err.Error()
	}
	s.feed.announce()
}

// Guarded takes the state of the guard.
func (s Source) Guarded(guard Guard) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.state().Guard != guard {
		s.state().Guard = guard
		s.feed.announce()
	}
}

// announce wakes the streams. The caller holds the lock.
func (f *Feed) announce() {
	f.revision++
	f.sorted = nil
	close(f.changed)
	f.changed = make(chan struct{})
}

// signal returns the current signal, and a channel that is closed at the next change.
func (f *Feed) signal() (signal, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now(), f.changed
}

// now returns the current signal. The caller holds the lock.
func (f *Feed) now() signal {
	if len(f.clusters) == 1 {
		return signal{Revision: f.revision, Lost: f.clusters[0].Lost, Guard: f.clusters[0].Guard}
	}
	return signal{Revision: f.revision, Clusters: slices.Clone(f.clusters)}
}

func (f *Feed) record(id string) *v1alpha1.AuditRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records[id]
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
	f.sorted = &snapshot{records: records, choices: choicesOf(records), signal: f.now()}
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// WatchOptions say what a Watch prints. Out, Warnings and Fail are required.
type WatchOptions struct {
	Filter audit.Filter
	// Limit bounds the records that are printed at first; 0 for all.
	Limit  int
	Screen Screen
	Wide   bool
	// Headless leaves the titles of the columns out.
	Headless bool
	// JSON prints a record per line in place of a table.
	JSON          bool
	Out, Warnings io.Writer
	// Fail ends the watch with an error.
	Fail func(error)
}

// Watch prints the existing records, and then each that comes or counts more. Its methods may be called concurrently.
type Watch struct {
	WatchOptions

	mu sync.Mutex // guards what follows
	// first has the existing records until they are printed.
	first  []v1alpha1.AuditRecord
	synced bool
	// counts has the last printed count of each record.
	counts map[string]int64
	table  *Table
	lost   bool
}

// NewWatch returns a Watch that has printed nothing.
func NewWatch(options WatchOptions) *Watch {
	return &Watch{WatchOptions: options, counts: map[string]int64{}}
}

// Changed prints a record that matches the filter and counts more than before.
func (w *Watch) Changed(record *v1alpha1.AuditRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.Filter.Match(record) || w.counts[record.Name] == record.Spec.Count {
		return
	}
	w.counts[record.Name] = record.Spec.Count
	if !w.synced {
		w.first = append(w.first, *record)
		return
	}
	w.print(record)
}

// Removed drops the count of a deleted record.
func (w *Watch) Removed(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.counts, name)
}

// Synced prints the existing records, the newest last.
func (w *Watch) Synced() {
	w.mu.Lock()
	defer w.mu.Unlock()
	records := audit.Newest(w.first, w.Limit)
	w.first, w.synced = nil, true
	slices.Reverse(records)
	if !w.JSON {
		w.table = NewTable(w.Screen, Layout{Wide: w.Wide, Live: true, Headless: w.Headless}, records)
		w.check(w.table.Header(w.Out))
	}
	for i := range records {
		w.print(&records[i])
	}
}

func (w *Watch) print(record *v1alpha1.AuditRecord) {
	if w.JSON {
		record.TypeMeta = audit.TypeMeta()
		w.check(json.NewEncoder(w.Out).Encode(record))
		return
	}
	w.check(w.table.Row(w.Out, record))
}

// check ends the watch when its output is closed.
func (w *Watch) check(err error) {
	if err != nil {
		w.Fail(fmt.Errorf("write the records: %w", err))
	}
}

// Reached warns when the API server cannot be reached, and when it can be again. A missing permission to read ends the watch.
func (w *Watch) Reached(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		w.Fail(err)
	case err != nil && !w.lost:
		w.lost = true
		fmt.Fprintf(w.Warnings, "Warning: %v; trying again until Ctrl-C.\n", err)
	case err == nil && w.lost:
		w.lost = false
		fmt.Fprintln(w.Warnings, "The API server answers again.")
	}
}

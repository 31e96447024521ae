// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/terminal"
)

// watcher prints the records that are there, and then each that comes or counts more.
type watcher struct {
	list           *listing
	stdout, stderr io.Writer
	// fail ends the watch with an error.
	fail context.CancelCauseFunc

	mu sync.Mutex // guards what follows
	// first are the records that were there; nil once they are printed.
	first  []v1alpha1.AuditRecord
	synced bool
	// counts is what was last told of each record.
	counts  map[string]int64
	table   *terminal.Table
	lost    bool
	encoder *json.Encoder
}

// follow prints until ctx ends.
func (l *listing) follow(cmd *cobra.Command, records *store.Store) error {
	// The libraries would tell of a lost connection in their own words; reached does.
	ctx, fail := context.WithCancelCause(klog.NewContext(cmd.Context(), logr.Discard()))
	defer fail(nil)
	w := &watcher{
		list: l, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), fail: fail, counts: map[string]int64{},
		encoder: json.NewEncoder(cmd.OutOrStdout()),
	}
	err := records.Follow(ctx, store.Follower{Changed: w.changed, Removed: w.removed, Synced: w.printFirst, Reached: w.reached})
	if err == nil && cmd.Context().Err() == nil {
		return context.Cause(ctx)
	}
	return err
}

func (w *watcher) changed(record *v1alpha1.AuditRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.list.filter.Match(record) || w.counts[record.Name] == record.Spec.Count {
		return
	}
	w.counts[record.Name] = record.Spec.Count
	if !w.synced {
		w.first = append(w.first, *record)
		return
	}
	w.end(w.print(record))
}

func (w *watcher) removed(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.counts, name)
}

// printFirst prints the records that were there, the newest last: more come below.
func (w *watcher) printFirst() {
	w.mu.Lock()
	defer w.mu.Unlock()
	records := w.first
	w.first, w.synced = nil, true
	audit.SortNewestFirst(records)
	if w.list.limit > 0 {
		records = records[:min(len(records), w.list.limit)]
	}
	slices.Reverse(records)
	if w.list.output.format != formatJSON {
		w.table = terminal.NewTable(screenOf(w.stdout), terminal.Layout{Wide: w.list.output.format == formatWide, Live: true}, records)
		w.end(w.table.Header(w.stdout))
	}
	for i := range records {
		w.end(w.print(&records[i]))
	}
}

func (w *watcher) print(record *v1alpha1.AuditRecord) error {
	if w.table == nil {
		return w.encoder.Encode(record)
	}
	return w.table.Row(w.stdout, record)
}

// end ends the watch when nobody reads it any more.
func (w *watcher) end(err error) {
	if err != nil {
		w.fail(fmt.Errorf("write the records: %w", err))
	}
}

// reached tells once when the API server cannot be reached, and once when it can again. Without the right to read on, there is
// nothing to wait for.
func (w *watcher) reached(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		w.fail(err)
	case err != nil && !w.lost:
		w.lost = true
		say(w.stderr, fmt.Sprintf("Warning: %v; trying again until Ctrl-C.", err))
	case err == nil && w.lost:
		w.lost = false
		say(w.stderr, "The API server answers again.")
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// maxBatch is how many records a Receiver gets at once: about 200 kB.
const maxBatch = 100

// Receiver takes records. Its functions are called one after the other.
type Receiver interface {
	// Receive returns once the cleaned records are safe elsewhere. An error ends Changes.
	Receive(ctx context.Context, records []v1alpha1.AuditRecord) error
	// Reached says that every record that was written before that time was received.
	Reached(at time.Time)
}

// Changes gives the receiver each record that was written since that time, and then each that is created or changed, until ctx ends or an
// error occurs, which Changes returns. Nothing waits in memory while the receiver does not return: the API server then ends the watch.
func (s *Store) Changes(ctx context.Context, since time.Time, receiver Receiver) error {
	b := &batch{receiver: receiver, reached: since}
	first := &v1alpha1.AuditRecordList{}
	if err := s.client.List(ctx, first, client.Limit(1)); err != nil {
		return explainRead("list", "audit records", err)
	}
	for record, err := range s.all(ctx) {
		if err != nil {
			return explainRead("list", "audit records", err)
		}
		if written := WrittenAt(record); written.IsZero() || !written.Before(since) {
			if err := b.add(ctx, record); err != nil {
				return err
			}
		}
	}
	if err := b.flush(ctx); err != nil { // in the order of names: only now all that were written before are received
		return err
	}
	watching, err := s.client.Watch(ctx, &v1alpha1.AuditRecordList{},
		&client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: first.ResourceVersion}})
	if err != nil {
		return explainRead("watch", "audit records", err)
	}
	defer watching.Stop()
	return b.follow(ctx, watching.ResultChan())
}

// batch gathers records.
type batch struct {
	receiver Receiver
	records  []v1alpha1.AuditRecord
	reached  time.Time
	// told is what the receiver knows of reached; nil before the first time.
	told *time.Time
}

func (b *batch) add(ctx context.Context, record *v1alpha1.AuditRecord) error {
	// A client that may write records could set a time in the future, and so hide the records until then.
	if written := WrittenAt(record); written.After(b.reached) && written.Before(time.Now()) {
		b.reached = written
	}
	audit.Clean(record)
	if b.records = append(b.records, *record); len(b.records) < maxBatch {
		return nil
	}
	return b.send(ctx)
}

func (b *batch) send(ctx context.Context) error {
	if len(b.records) == 0 {
		return nil
	}
	err := b.receiver.Receive(ctx, b.records)
	b.records = nil
	return err
}

func (b *batch) flush(ctx context.Context) error {
	if err := b.send(ctx); err != nil {
		return err
	}
	if b.told == nil || !b.told.Equal(b.reached) {
		b.receiver.Reached(b.reached)
		b.told = new(b.reached)
	}
	return nil
}

// follow sends a batch when it is full, or when no further event waits.
func (b *batch) follow(ctx context.Context, events <-chan watch.Event) error {
	for event := range events {
		for waits := true; waits; {
			if err := b.take(ctx, event); err != nil {
				return err
			}
			select {
			case event, waits = <-events:
			default:
				waits = false
			}
		}
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) take(ctx context.Context, event watch.Event) error {
	if event.Type == watch.Error {
		return fmt.Errorf("watch audit records: %w", apierrors.FromObject(event.Object))
	}
	if record, ok := event.Object.(*v1alpha1.AuditRecord); ok && (event.Type == watch.Added || event.Type == watch.Modified) {
		return b.add(ctx, record)
	}
	return nil
}

// WrittenAt is when an object was written last, by the API server's clock; zero if it does not say.
func WrittenAt(object metav1.Object) time.Time {
	last := time.Time{}
	for _, entry := range object.GetManagedFields() {
		if entry.Time != nil && entry.Time.After(last) {
			last = entry.Time.Time
		}
	}
	return last
}

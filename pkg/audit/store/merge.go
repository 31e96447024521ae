// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// maxConflicts is how often another replica may be quicker before Merge gives up; its caller tries again later.
const maxConflicts = 8

// Merge stores what record knows besides what is stored under its name: it creates the record, or raises the counts of the
// stored one. It may be repeated: what is stored already is not counted again. last is what the previous Merge of this
// name has returned, or nil. The result is the record as stored; where last has all of it, it is read again to see that.
//
// The error wraps ErrNotInstalled, audit.ErrAltered where the name has no record to count into any more, or is the API
// server's; then nobody knows whether the record was stored.
func (s *Store) Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	live := last
	for range maxConflicts {
		stored, err := s.mergeOnce(ctx, record, live)
		switch {
		case err == nil:
			return stored, nil
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
			if live, err = s.readAgain(ctx, record, last); err != nil {
				return nil, err
			}
		case isGone(err) && live != nil:
			return nil, fmt.Errorf("store audit record %q: %w: it was deleted", record.Name, audit.ErrAltered)
		default:
			return nil, explain(fmt.Sprintf("store audit record %q", record.Name), err)
		}
	}
	return nil, fmt.Errorf("store audit record %q: other replicas were quicker %d times", record.Name, maxConflicts)
}

// mergeOnce creates the record where there is none, and else replaces the live one, unless it has changed meanwhile.
func (s *Store) mergeOnce(ctx context.Context, record, live *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	if live == nil {
		created := record.DeepCopy()
		created.ResourceVersion, created.UID = "", ""
		if err := s.client.Create(ctx, created, client.FieldOwner(guardian.FieldManager)); err != nil {
			return nil, err
		}
		return created, compare(created, record)
	}
	merged := live.DeepCopy()
	if !audit.Merge(merged, record) {
		return s.readAgain(ctx, record, live)
	}
	if !audit.Sound(merged) {
		return nil, fmt.Errorf("store audit record %q: %w: its counts leave no room", record.Name, audit.ErrAltered)
	}
	sent := merged.DeepCopy()
	if err := s.client.Update(ctx, merged, client.FieldOwner(guardian.FieldManager)); err != nil {
		return nil, err
	}
	return merged, compare(merged, sent)
}

// compare holds what came back against what was sent: a mutating admission may have altered it on its way.
func compare(stored, sent *v1alpha1.AuditRecord) error {
	if !equality.Semantic.DeepEqual(stored.Spec, sent.Spec) || !audit.Sound(stored) {
		return fmt.Errorf("store audit record %q: %w: the API server stored something else than was sent", sent.Name, audit.ErrAltered)
	}
	return nil
}

// readAgain returns the stored record if record may count into it, and nil where there is none and never was.
func (s *Store) readAgain(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	live, err := s.read(ctx, record.Name)
	if err != nil {
		return nil, err
	}
	if reason := altered(live, record, last); reason != "" {
		return nil, fmt.Errorf("store audit record %q: %w: %s", record.Name, audit.ErrAltered, reason)
	}
	return live, nil
}

// altered says why record must not count into live; "" where it may.
func altered(live, record, last *v1alpha1.AuditRecord) string {
	switch {
	case live == nil && last == nil:
		return ""
	case live == nil:
		return "it was deleted"
	case !audit.Agree(live, record):
		return "it stands for another write"
	case !audit.Sound(live):
		return "its counts, owners or finalizers are not a guard's"
	case !audit.InWindow(live), last != nil && !audit.Holds(live, last):
		return "its counts or times were moved"
	}
	return ""
}

// read returns nil for a record that is gone meanwhile.
func (s *Store) read(ctx context.Context, name string) (*v1alpha1.AuditRecord, error) {
	live := &v1alpha1.AuditRecord{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(live), live)
	if isGone(err) {
		return nil, nil //nolint:nilnil // no record is no error
	}
	if err != nil {
		return nil, explain(fmt.Sprintf("read audit record %q", name), err)
	}
	return live, nil
}

// isGone tells a record that is absent from a kind that is absent, whose path the API server does not know.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

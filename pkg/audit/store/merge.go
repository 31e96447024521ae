// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// maxConflicts is how often another replica may be faster before Merge gives up.
const maxConflicts = 8

// Merge creates the record, or raises the counts of the stored one to those of record. It may be repeated: stored counts are
// not counted again. last is the result of the previous Merge of this name, or nil. Merge returns the record as stored. If
// last has all counts, Merge reads the record again.
//
// The error wraps audit.ErrAltered if another client has made the name unusable. After another one, the record may be stored or not.
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
	return nil, fmt.Errorf("store audit record %q: other replicas were faster %d times", record.Name, maxConflicts)
}

// mergeOnce creates the record if live is nil, and replaces live otherwise.
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

// compare finds what a mutating admission has changed.
func compare(stored, sent *v1alpha1.AuditRecord) error {
	if !equality.Semantic.DeepEqual(stored.Spec, sent.Spec) || !audit.Sound(stored) {
		return fmt.Errorf("store audit record %q: %w: the API server stored another content than was sent", sent.Name, audit.ErrAltered)
	}
	return nil
}

// readAgain returns the stored record if record may count into it, and nil if there is none and there was none.
func (s *Store) readAgain(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	live := &v1alpha1.AuditRecord{}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(record), live)
	if isGone(err) && last == nil {
		return nil, nil //nolint:nilnil // no record is no error
	}
	if err != nil && !isGone(err) {
		return nil, explain(fmt.Sprintf("read audit record %q", record.Name), err)
	}
	reason := "it was deleted"
	if err == nil {
		reason = altered(live, record, last)
	}
	if reason != "" {
		return nil, fmt.Errorf("store audit record %q: %w: %s", record.Name, audit.ErrAltered, reason)
	}
	return live, nil
}

// altered says why record must not count into live; "" if it may.
func altered(live, record, last *v1alpha1.AuditRecord) string {
	switch {
	case !audit.Agree(live, record):
		return "it is of another write"
	case !audit.Sound(live):
		return "its counts, owners or finalizers are not a guard's"
	case !audit.InWindow(live), last != nil && !audit.Holds(live, last):
		return "its counts or times were changed"
	}
	return ""
}

// isGone distinguishes an absent record from an absent kind, whose path the API server does not know.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// Import stores records of another source. It returns how many it has stored before the first error; to continue, repeat it.
func (s *Store) Import(ctx context.Context, records []*v1alpha1.AuditRecord) (int, error) {
	for i, record := range records {
		_, err := s.Merge(ctx, record, nil)
		if errors.Is(err, audit.ErrAltered) {
			record.Name = audit.SecondName(record.Name)
			_, err = s.Merge(ctx, record, nil)
		}
		if err != nil {
			return i, err
		}
	}
	return len(records), nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recordstore

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// fieldManager owns what the guard writes.
const fieldManager = "apigw-guardian"

// maxConflicts is how often another replica may be quicker before Merge gives up; its caller tries again later.
const maxConflicts = 8

// Merge stores what record knows besides what is stored under its name: it creates the record, or raises the counts of the
// stored one. It may be repeated: what is stored already is not counted again. last is what the previous Merge of this
// name has returned, or nil; it saves a read. The result is the record as stored.
//
// The error wraps ErrNotInstalled, or is the API server's; then nobody knows whether the record was stored.
func (s *Store) Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	live := last
	for range maxConflicts {
		stored, err := s.mergeOnce(ctx, record, live)
		switch {
		case err == nil:
			return stored, nil
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
			if live, err = s.read(ctx, record.Name); err != nil {
				return nil, err
			}
		case apierrors.IsNotFound(err) && live != nil: // somebody has deleted it
			live = nil
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
		return created, s.client.Create(ctx, created, client.FieldOwner(fieldManager))
	}
	merged := live.DeepCopy()
	if !audit.Merge(merged, record) {
		return merged, nil
	}
	return merged, s.client.Update(ctx, merged, client.FieldOwner(fieldManager))
}

// read returns nil for a record that is gone meanwhile.
func (s *Store) read(ctx context.Context, name string) (*v1alpha1.AuditRecord, error) {
	live := &v1alpha1.AuditRecord{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err := s.client.Get(ctx, client.ObjectKeyFromObject(live), live)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // no record is no error
	}
	if err != nil {
		return nil, explain(fmt.Sprintf("read audit record %q", name), err)
	}
	return live, nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recordstore

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Retention is which records are kept.
type Retention struct {
	// Age is how long after its last write a record is kept. Most is how many are kept, the oldest going first. Both are above
	// zero.
	Age  time.Duration
	Most int64
}

// Trim deletes the records that the retention does not keep, and returns how many those were. It reads a page of the oldest
// at a time: their names are in order of time. Whatever it has deleted before an error is deleted.
func (s *Store) Trim(ctx context.Context, retention Retention, now time.Time) (int, error) {
	total := 0
	for {
		page := &v1alpha1.AuditRecordList{}
		if err := s.client.List(ctx, page, client.Limit(pageSize)); err != nil {
			return total, explain("list the oldest audit records", err)
		}
		deleted, err := s.deleteAll(ctx, outdated(page, retention, now))
		total += deleted
		if err != nil || deleted < pageSize {
			return total, err
		}
	}
}

// outdated returns the records of the first page that are too many or too old.
func outdated(page *v1alpha1.AuditRecordList, retention Retention, now time.Time) []v1alpha1.AuditRecord {
	count := int64(len(page.Items))
	if page.RemainingItemCount != nil {
		count += *page.RemainingItemCount
	}
	excess := min(max(count-retention.Most, 0), int64(len(page.Items)))
	last := int(excess)
	for last < len(page.Items) && now.Sub(page.Items[last].Spec.LastTime.Time) > retention.Age {
		last++
	}
	return page.Items[:last]
}

func (s *Store) deleteAll(ctx context.Context, records []v1alpha1.AuditRecord) (int, error) {
	for i := range records {
		record := &records[i]
		err := s.client.Delete(ctx, record, client.Preconditions{ResourceVersion: &record.ResourceVersion})
		// A record that has changed since is one that counts again: the next round looks at it anew.
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return i, fmt.Errorf("delete audit record %q: %w", record.Name, err)
		}
	}
	return len(records), nil
}

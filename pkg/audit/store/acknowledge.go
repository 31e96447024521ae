// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	guardianclient "github.com/apigw-guardian/apigw-guardian/pkg/client"
)

// User returns the caller's name, as the API server sees it.
func (s *Store) User(ctx context.Context) (string, error) {
	return guardianclient.UserName(ctx, s.users)
}

// Word is what a user says of records.
type Word struct {
	// By is the caller's User.
	By, Note string
	// DryRun stores nothing.
	DryRun bool
}

// Acknowledge adds an acknowledgement of the writes that the record counts. It returns the record as stored, cleaned. Writes that were
// counted since the caller read the record stay unacknowledged. A repetition adds none.
func (s *Store) Acknowledge(ctx context.Context, seen *v1alpha1.AuditRecord, word Word) (*v1alpha1.AuditRecord, error) {
	what := fmt.Sprintf("acknowledge audit record %q", seen.Name)
	options := &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{FieldManager: guardian.FieldManager}}
	if word.DryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	for range maxConflicts {
		record := &v1alpha1.AuditRecord{}
		err := s.client.Get(ctx, client.ObjectKeyFromObject(seen), record)
		if err != nil {
			return nil, explainRead("get", fmt.Sprintf("audit record %q", seen.Name), err)
		}
		if last := record.Acknowledged(); last == nil || last.By != word.By {
			record.Status.Acknowledgements = append(record.Status.Acknowledgements, v1alpha1.Acknowledgement{
				By: word.By, At: metav1.NewTime(s.clock.Server().Truncate(time.Second)), Note: word.Note, Count: seen.Spec.Count,
			})
			err = s.client.Status().Update(ctx, record, options)
		}
		switch {
		case err == nil:
			audit.Clean(record)
			return record, nil
		case apierrors.IsForbidden(err):
			return nil, fmt.Errorf("%s: %w", what, err)
		case !apierrors.IsConflict(err):
			return nil, explain(what, err)
		}
	}
	return nil, fmt.Errorf("%s: other writers were faster %d times: try again", what, maxConflicts)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Records are the audit records of the cluster.
type Records interface {
	// List returns those that fit a filter.
	List(ctx context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error)
	// TryCreate tries to create one, and stores nothing. The error says why the guard could not either.
	TryCreate(ctx context.Context) error
}

// addDenials counts the denials of the last day. A cluster without records, or a caller without the right to read them, is as
// authorized and as protected as another.
func (a *Authorizer) addDenials(ctx context.Context, status *Status) {
	if a.cluster.Records == nil {
		status.DenialsSentence = "nobody was asked"
		return
	}
	since := time.Now().Add(-24 * time.Hour)
	records, err := a.cluster.Records.List(ctx, audit.Filter{Since: since, Outcome: string(v1alpha1.Denied)})
	if err != nil {
		status.DenialsSentence = err.Error()
		return
	}
	status.Denials24h = new(int64)
	for i := range records {
		*status.Denials24h += records[i].Spec.Count
	}
}

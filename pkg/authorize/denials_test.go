// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

type storedRecords struct {
	records []v1alpha1.AuditRecord
	err     error
}

func (s storedRecords) List(_ context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error) {
	var fit []v1alpha1.AuditRecord
	for i := range s.records {
		if filter.Match(&s.records[i]) {
			fit = append(fit, s.records[i])
		}
	}
	return fit, s.err
}

func (s storedRecords) TryCreate(context.Context) error { return s.err }

func TestStatusCountsTheDenialsOfADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		of := func(outcome v1alpha1.Outcome, ago time.Duration, count int64) v1alpha1.AuditRecord {
			at := metav1.NewMicroTime(time.Now().Add(-ago))
			return v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Outcome: outcome, FirstTime: at, LastTime: at, Count: count}}
		}
		stored := storedRecords{records: []v1alpha1.AuditRecord{
			of(v1alpha1.Denied, time.Hour, 3), of(v1alpha1.Denied, 24*time.Hour, 4),
			of(v1alpha1.Denied, 25*time.Hour, 50), of(v1alpha1.WouldDeny, time.Hour, 600), of(v1alpha1.Unlocked, time.Hour, 7000),
		}}
		var status Status
		(&Authorizer{cluster: Cluster{Records: stored}}).addDenials(t.Context(), &status)
		if status.Denials24h == nil || *status.Denials24h != 7 || status.DenialsSentence != "" {
			t.Errorf("got %v, %q", status.Denials24h, status.DenialsSentence)
		}
	})
}

func TestStatusSaysWhyTheDenialsAreNotKnown(t *testing.T) {
	t.Parallel()
	for name, records := range map[string]Records{"no records": nil, "no right": storedRecords{err: errors.New("you lack the right")}} {
		var status Status
		(&Authorizer{cluster: Cluster{Records: records}}).addDenials(t.Context(), &status)
		if status.Denials24h != nil || status.DenialsSentence == "" {
			t.Errorf("%s: got %v, %q", name, status.Denials24h, status.DenialsSentence)
		}
	}
}

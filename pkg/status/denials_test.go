// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

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
		var report Report
		report.addDenials(t.Context(), stored)
		if report.Denials24h == nil || *report.Denials24h != 7 || report.DenialsProblem != "" {
			t.Errorf("got %v, %q", report.Denials24h, report.DenialsProblem)
		}
	})
}

func TestStatusSaysWhyTheDenialsAreNotKnown(t *testing.T) {
	t.Parallel()
	var report Report
	report.addDenials(t.Context(), storedRecords{err: errors.New("missing permission")})
	if report.Denials24h != nil || report.DenialsProblem != "missing permission" {
		t.Errorf("got %v, %q", report.Denials24h, report.DenialsProblem)
	}
}

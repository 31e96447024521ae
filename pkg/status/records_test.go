// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"errors"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

func TestStatusSaysWhetherDenialsAreRecorded(t *testing.T) {
	t.Parallel()
	yes, no := new(true), new(false)
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "auditrecords"}, "x", errors.New("no"))
	for name, test := range map[string]struct {
		records Records
		guard   string // what the guard says
		denied  bool   // whether RBAC denies the caller to create records
		want    *bool
	}{
		"a store that takes records":                 {storedRecords{}, "", false, yes},
		"a quota that refuses them":                  {storedRecords{err: forbidden}, "", false, no},
		"a store that refuses them":                  {storedRecords{err: errors.New("quota")}, "", false, no},
		"a caller who may not try":                   {storedRecords{err: forbidden}, "", true, nil},
		"a caller who may not try, but a guard says": {storedRecords{err: forbidden}, "no such kind", true, no},
		"a guard that says what the caller sees not": {storedRecords{}, "forbidden", false, no},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registered := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
				Name: guardian.WebhookConfiguration, Annotations: map[string]string{guardian.RecordsProblemAnnotation: test.guard},
			}}
			cluster, client := fakeCluster(t, nil, nil)
			shop.Allow(client, func(authorizationv1.SelfSubjectAccessReviewSpec) bool { return !test.denied })
			var report Report
			report.addRecording(t.Context(), cluster, registered, test.records)
			got := report.Recorded
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Errorf("recorded: %v, want %v", got, test.want)
			}
			if isProblem := got != nil && !*got; isProblem != (len(report.Reasons) > 0) {
				t.Errorf("reasons: %v", report.Reasons)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Clients of Go cannot parse other times, so that one such record would end every list, and retention.
func TestATimeThatNoReaderCanParseIsRefused(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	good := put(t, denial(time.Minute, nil))
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(denial(time.Hour, nil))
	if err != nil {
		t.Fatal(err)
	}
	for text, wanted := range map[string]bool{
		"2026-11-28T10:00:00Z": false, "2026-11-28T10:00:00.1Z": false, "2026-11-28T10:00:00.123456789Z": false, "2026-11-28T10:00:00+08:00": false,
		"2026-11-28T10:00:00.123456Z": true, "2026-11-28T10:00:00.123456+08:00": true,
	} {
		for _, field := range []string{"firstTime", "lastTime"} {
			record := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(content)}
			record.SetGroupVersionKind(v1alpha1.GroupVersion().WithKind("AuditRecord"))
			record.SetName("")
			record.SetGenerateName("time-")
			if err := unstructured.SetNestedField(record.Object, text, "spec", field); err != nil {
				t.Fatal(err)
			}
			if err := recordClient(t).Create(t.Context(), record); (err == nil) != wanted || err != nil && !apierrors.IsInvalid(err) {
				t.Errorf("%s %s: %v", field, text, err)
			}
		}
	}
	harness.Run(t, "audit", "list", "-o", "name").Require(t, 0, good)
}

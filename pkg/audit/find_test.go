// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestRecordsAreFoundByPartsOfTheirNames(t *testing.T) {
	t.Parallel()
	const (
		march = "20260301t0000-update-aaaa"
		first = "20261125t0820-delete-bbbb"
		same  = "20261125t0820-update-cccc"
		later = "20261126t0820-update-dddd"
	)
	var records []v1alpha1.AuditRecord
	for _, name := range []string{march, first, same, later} {
		records = append(records, v1alpha1.AuditRecord{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for name, test := range map[string]struct {
		text        string
		named, near []string
	}{
		"the digest":             {"cccc", []string{same}, nil},
		"in upper case":          {"20261126T", []string{later}, []string{later, first, same}},
		"what several have":      {"update", []string{march, same, later}, nil},
		"a slip at the end":      {"20261125t0820-update-cccd", nil, []string{same, first, later}},
		"another year":           {"20251125t0820-update-cccc", nil, nil},
		"longer than any name":   {later + later, nil, []string{later, first, same}},
		"what no name can be":    {"../secrets", nil, nil},
		"a month without others": {"20260302t", nil, []string{march}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.named, Named(records, test.text)); diff != "" {
				t.Errorf("named (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.near, Near(records, test.text)); diff != "" {
				t.Errorf("near (-want +got)\n%s", diff)
			}
		})
	}
}

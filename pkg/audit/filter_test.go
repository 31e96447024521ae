// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func written(name string, first, last time.Time) v1alpha1.AuditRecord {
	record := v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{FirstTime: metav1.NewMicroTime(first), LastTime: metav1.NewMicroTime(last)}}
	record.Name = name
	return record
}

// Two adjacent times share no write at their border.
func TestATimeOfAFilterHasItsStartAndNotItsEnd(t *testing.T) {
	border := time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		first, last  time.Time
		since, until bool
	}{
		"before":            {border.Add(-2), border.Add(-1), false, true},
		"from then on":      {border, border.Add(1), true, false},
		"until then":        {border.Add(-1), border, true, true},
		"at that very time": {border, border, true, false},
	} {
		record := written("a", test.first, test.last)
		if got := (Filter{Since: border}).Match(&record); got != test.since {
			t.Errorf("%s: since: got %t, want %t", name, got, test.since)
		}
		if got := (Filter{Until: border}).Match(&record); got != test.until {
			t.Errorf("%s: until: got %t, want %t", name, got, test.until)
		}
	}
}

func TestTheNewestRecordsComeFirst(t *testing.T) {
	early := time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC)
	late := early.Add(time.Second)
	all := func() []v1alpha1.AuditRecord {
		return []v1alpha1.AuditRecord{written("b", early, late), written("c", early, early), written("a", early, late)}
	}
	for limit, want := range map[int][]string{0: {"a", "b", "c"}, 1: {"a"}, 9: {"a", "b", "c"}} {
		var got []string
		for _, record := range Newest(all(), limit) {
			got = append(got, record.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: (-want +got)\n%s", limit, diff)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
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

func TestAFilterSelectsTheWritesUnderAnUnlock(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Unlock: "unlock-x7k2p", Justification: "ticket 4711"}}
	for name, test := range map[string]struct {
		filter Filter
		want   bool
	}{
		"no filter":                    {Filter{}, true},
		"its unlock":                   {Filter{Unlock: "unlock-x7k2p"}, true},
		"another unlock":               {Filter{Unlock: "unlock-c4m9q"}, false},
		"a part of its unlock":         {Filter{Unlock: "unlock-"}, false},
		"its unlock in upper case":     {Filter{Unlock: "UNLOCK-X7K2P"}, false},
		"a text of the unlock's name":  {Filter{Text: "X7K2"}, true},
		"a text of its justification":  {Filter{Text: "4711"}, true},
		"a text that it does not have": {Filter{Text: "4712"}, false},
	} {
		if got := test.filter.Match(record); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
	if (Filter{Unlock: "unlock-x7k2p"}).Match(&v1alpha1.AuditRecord{}) {
		t.Error("a record without an unlock matches")
	}
}

func TestOldestIsByTimeAndNotByName(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC)
	record := func(name string, first, last int) v1alpha1.AuditRecord {
		r := v1alpha1.AuditRecord{}
		r.Name = name
		r.Spec.FirstTime, r.Spec.LastTime = metav1.NewMicroTime(at.Add(time.Duration(first))), metav1.NewMicroTime(at.Add(time.Duration(last)))
		return r
	}
	got := Oldest([]v1alpha1.AuditRecord{
		record("t0820-create-1", 5, 9), record("t0820-delete-2", 6, 6), record("t0820-update-3", 1, 2), record("t0810-update-5", 3, 6), record("t0810-update-4", 3, 6),
	})
	var names []string
	for _, r := range got {
		names = append(names, r.Name)
	}
	if want := []string{"t0820-update-3", "t0810-update-4", "t0810-update-5", "t0820-delete-2", "t0820-create-1"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestARecordIsUnacknowledgedAgainOnceItCountsMore(t *testing.T) {
	t.Parallel()
	ack := func(count int64) v1alpha1.Acknowledgement {
		return v1alpha1.Acknowledgement{By: "alice", Note: "a test", Count: count}
	}
	for name, test := range map[string]struct {
		count int64
		acks  []v1alpha1.Acknowledgement
		want  bool
	}{
		"without an acknowledgement":                        {3, nil, true},
		"acknowledged":                                      {3, []v1alpha1.Acknowledgement{ack(3)}, false},
		"that counts more since then":                       {4, []v1alpha1.Acknowledgement{ack(3)}, true},
		"acknowledged again":                                {4, []v1alpha1.Acknowledgement{ack(3), ack(4)}, false},
		"acknowledged, and by another user who saw less":    {4, []v1alpha1.Acknowledgement{ack(4), ack(3)}, false},
		"with an acknowledgement of writes that never were": {3, []v1alpha1.Acknowledgement{ack(99)}, true},
	} {
		record := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Count: test.count}}
		record.Status.Acknowledgements = test.acks
		if got := (Filter{Unacknowledged: true}).Match(record); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
		if !(Filter{}).Match(record) || (Filter{Text: "a TEST"}).Match(record) != (len(test.acks) > 0) {
			t.Errorf("%s: the note is not found as a text", name)
		}
	}
}

func TestMergeKeepsAcknowledgements(t *testing.T) {
	t.Parallel()
	event := Event{Time: time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC), Outcome: v1alpha1.Denied}
	record := event.Record("a", 1)
	record.Status.Acknowledgements = []v1alpha1.Acknowledgement{{By: "alice", Note: "a test", Count: 1}}
	want := slices.Clone(record.Status.Acknowledgements)
	if !Merge(record, event.Counted("a", 2)) || record.Acknowledged() != nil {
		t.Errorf("got %+v", record)
	}
	if diff := cmp.Diff(want, record.Status.Acknowledgements); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

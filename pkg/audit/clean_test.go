// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// hostile clears a screen, turns the direction of writing, and is not UTF-8.
const hostile = "\x1b[2J\u202e\u0085\xff"

// An Unlock is what its requester wrote, and its approver reads it on a terminal.
func TestCleanUnlockLeavesNothingThatControlsATerminal(t *testing.T) {
	t.Parallel()
	const hostile = "\x1b[2Ka\nb\u202e"
	clean := "\ufffd[2Ka\ufffdb\ufffd"
	unlock := &v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{
		Name: "unlock-a", Annotations: map[string]string{"a": hostile}, Labels: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{}},
	}}
	unlock.Spec = v1alpha1.UnlockSpec{
		Reservation: hostile, Reason: hostile, RequestedBy: hostile, Users: []string{"bob", hostile}, Resources: []string{hostile},
	}
	unlock.Status.ApprovedBy = hostile
	CleanUnlock(unlock)
	want := &v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{
		Name: "unlock-a", Annotations: map[string]string{"a": clean}, Labels: map[string]string{"a": "b"},
	}}
	want.Spec = v1alpha1.UnlockSpec{Reservation: clean, Reason: clean, RequestedBy: clean, Users: []string{"bob", clean}, Resources: []string{clean}}
	want.Status.ApprovedBy = clean
	if diff := cmp.Diff(want, unlock); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Every text of a record is made hostile, fields that do not exist yet included.
func TestCleanLeavesNothingThatTakesOverATerminal(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AuditRecord{}
	fill(reflect.ValueOf(record).Elem())
	// The API server checks these itself: DNS names, an id and versions of its own making.
	record.TypeMeta = metav1.TypeMeta{}
	for _, name := range []string{"Name", "GenerateName", "Namespace", "SelfLink", "UID", "ResourceVersion"} {
		reflect.ValueOf(&record.ObjectMeta).Elem().FieldByName(name).SetString("")
	}
	record.Labels = map[string]string{"key": hostile}
	record.Annotations = map[string]string{"key": hostile}
	Clean(record)
	visit(reflect.ValueOf(record).Elem(), "record", func(path, text string) {
		if strings.ContainsAny(text, "\x1b\u202e\u0085") || strings.Contains(text, "\xff") {
			t.Errorf("%s: %q", path, text)
		}
	})
}

func TestCleanLeavesWhatTheGuardWroteAsItIs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä\x1b", 5000)
	fact := Event{
		Time: time.Now(), RequestUID: long, Operation: admissionv1.Operation(long), Object: v1alpha1.ParseObjectReference(long), Reason: "ReservedUpdate", Message: long,
		Changed: []string{long}, User: v1alpha1.User{Name: long, UID: long, Groups: []string{long}},
	}
	record, want := fact.Record("a", 1), fact.Record("a", 1)
	Clean(record)
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// fill gives every text the hostile value, and every list and pointer an element.
func fill(v reflect.Value) {
	if v.Type().PkgPath() == "time" || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	}
}

func visit(v reflect.Value, path string, each func(path, text string)) {
	switch v.Kind() {
	case reflect.String:
		each(path, v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				visit(v.Field(i), path+"."+v.Type().Field(i).Name, each)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			visit(v.Index(i), path+"[]", each)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			visit(v.MapIndex(key), path+"[]", each)
		}
	}
}

func TestForgedCountsDoNotOverflow(t *testing.T) {
	t.Parallel()
	var records []v1alpha1.AuditRecord
	for range 3 {
		record := v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{
			Count: math.MaxInt64, Counts: []v1alpha1.ReplicaCount{{Replica: "a", Count: math.MaxInt64}},
		}}
		Clean(&record)
		records = append(records, record)
	}
	if got := Summarize(records, time.UTC).Writes; got != 3*MaxCount || records[0].Spec.Counts[0].Count != MaxCount {
		t.Errorf("%d writes", got)
	}
	forged := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Count: math.MaxInt64}}
	if Merge(forged, &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Counts: []v1alpha1.ReplicaCount{{Replica: "a", Count: 7}}}}); forged.Spec.Count < 7 {
		t.Errorf("merged to %d writes", forged.Spec.Count)
	}
}

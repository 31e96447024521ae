// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// eventRecorder keeps Events as "APIVERSION KIND NAMESPACE/NAME REASON ACTION".
type eventRecorder struct {
	seen, notes        []string
	regarding, related []*corev1.ObjectReference
}

func (r *eventRecorder) Eventf(regarding, related runtime.Object, _, reason, action, note string, args ...any) {
	object, _ := regarding.(*corev1.ObjectReference)
	other, _ := related.(*corev1.ObjectReference)
	r.regarding, r.related = append(r.regarding, object), append(r.related, other)
	r.seen = append(r.seen, fmt.Sprintf("%s %s %s/%s %s %s", object.APIVersion, object.Kind, object.Namespace, object.Name, reason, action))
	r.notes = append(r.notes, fmt.Sprintf(note, args...))
}

func TestAnnounce(t *testing.T) {
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	secret := v1alpha1.ObjectReference{Resource: "secrets", Namespace: "kube-system", Name: "x"}
	role := v1alpha1.ObjectReference{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "r"}
	for name, test := range map[string]struct {
		outcome v1alpha1.Outcome
		object  v1alpha1.ObjectReference
		want    string // "" for no Event
	}{
		"a denial":                          {v1alpha1.Denied, secret, "v1 Secret kube-system/x Why Denied"},
		"a write that would be denied":      {v1alpha1.WouldDeny, secret, "v1 Secret kube-system/x Why WouldDeny"},
		"a denial of a cluster-scoped kind": {v1alpha1.Denied, role, "rbac.authorization.k8s.io/v1 ClusterRole /r Why Denied"},
		"a restoration":                     {v1alpha1.Restored, secret, ""},
		"a kind that is not reserved":       {v1alpha1.Denied, v1alpha1.ObjectReference{Resource: "pods", Namespace: "a", Name: "b"}, ""},
		"a secret without a namespace":      {v1alpha1.Denied, v1alpha1.ObjectReference{Resource: "secrets", Name: "x"}, ""},
		"a flood, which has no name":        {v1alpha1.Denied, v1alpha1.ObjectReference{Resource: "secrets", Namespace: "kube-system"}, ""},
		"an edited webhook configuration": {
			v1alpha1.Tampered, RegistrationObject(), "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration /apigw-guardian Why Tampered",
		},
		"a lease that is held":      {v1alpha1.Tampered, LeaseObject("n"), "coordination.k8s.io/v1 Lease n/apigw-guardian Why Tampered"},
		"tampering with other data": {v1alpha1.Tampered, secret, ""},
		"drift":                     {v1alpha1.Drift, role, "rbac.authorization.k8s.io/v1 ClusterRole /r Why Drift"},
		"a gap": {
			v1alpha1.Gap, RegistrationObject(), "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration /apigw-guardian Why Gap",
		},
	} {
		t.Run(name, func(t *testing.T) {
			record := denied("jane", 1)
			record.Spec.Outcome, record.Spec.Object, record.Spec.Reason = test.outcome, test.object, "Why"
			recorder := &eventRecorder{}
			NewEvents(recorder, set).Announce(record)
			if got := strings.Join(recorder.seen, ", "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if test.want != "" && !strings.Contains(recorder.notes[0], "audit show "+record.Name) {
				t.Errorf("the note is %q", recorder.notes[0])
			}
		})
	}
}

func TestAnEventNamesItsObjectAndItsRecord(t *testing.T) {
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	recorder := &eventRecorder{}
	events := NewEvents(recorder, set)
	for _, user := range []string{"alice", "bob", "carol"} {
		record := denied(user, 1)
		record.UID, record.Annotations = types.UID("of "+user), map[string]string{guardian.ObjectUIDAnnotation: "7af84d9c"}
		events.Announce(record)
	}
	for i, user := range []string{"alice", "bob", "carol"} {
		regarding, related := recorder.regarding[i], recorder.related[i]
		if regarding.UID != "7af84d9c" || related.Kind != "AuditRecord" || related.UID != types.UID("of "+user) || related.Name != denied(user, 1).Name {
			t.Errorf("%s: got an Event of %+v, related to %+v", user, regarding, related)
		}
		if !strings.Contains(recorder.notes[i], `by "`+user+`"`) {
			t.Errorf("%s: the note is %q", user, recorder.notes[i])
		}
	}
}

func TestTheNoteOfAnEventFitsTheAPIServer(t *testing.T) {
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for length := range 8 { // a cut at each byte of a character
		record := denied(strings.Repeat("x", length)+strings.Repeat("網", 70), 1)
		record.Spec.Message = strings.Repeat("x", length) + strings.Repeat("關", 600)
		recorder := &eventRecorder{}
		NewEvents(recorder, set).Announce(record)
		note := recorder.notes[0]
		if len(note) > 1024 || !utf8.ValidString(note) || strings.Contains(note, "\uFFFD") || !strings.HasSuffix(note, "(apigw-guardian audit show "+record.Name+")") {
			t.Errorf("%d bytes: %q", len(note), note)
		}
	}
}

func TestAFloodOfRecordsHasFewEvents(t *testing.T) {
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	recorder := &eventRecorder{}
	events := NewEvents(recorder, set)
	for i := range 1000 {
		events.Announce(denied(fmt.Sprint("user-", i), 1))
	}
	if got := len(recorder.notes); got < 10 || got >= 50/2 {
		t.Errorf("a flood of 1000 has %d Events of one replica", got)
	}
}

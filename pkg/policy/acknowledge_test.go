// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// ackOf returns alice's acknowledgement of three writes at the time of the request; change makes it another.
func ackOf(change func(*v1alpha1.Acknowledgement)) v1alpha1.Acknowledgement {
	ack := v1alpha1.Acknowledgement{By: "alice", At: after(0), Note: "a failed deployment", Count: 3}
	if change != nil {
		change(&ack)
	}
	return ack
}

func recordOf(acks ...v1alpha1.Acknowledgement) *v1alpha1.AuditRecord {
	return &v1alpha1.AuditRecord{
		ObjectMeta: metav1.ObjectMeta{Name: "record-a"},
		Spec:       v1alpha1.AuditRecordSpec{Outcome: v1alpha1.Denied, Count: 3},
		Status:     v1alpha1.AuditRecordStatus{Acknowledgements: acks},
	}
}

func acknowledging(t *testing.T, old, changed *v1alpha1.AuditRecord) *Request {
	t.Helper()
	return &Request{
		GVR: RecordResource(), Operation: admissionv1.Update, Subresource: "status", Name: "record-a", User: v1alpha1.User{Name: "alice"},
		OldObject: encode(t, old), Object: encode(t, changed),
	}
}

func TestWhichAcknowledgementsAreAllowed(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) func(*v1alpha1.Acknowledgement) {
		return func(a *v1alpha1.Acknowledgement) { a.At = after(d) }
	}
	bobs := ackOf(func(a *v1alpha1.Acknowledgement) { a.By, a.Count = "bob", 1 })
	other := ackOf(func(a *v1alpha1.Acknowledgement) { a.By, a.Count, a.Note = "bob", 1, "nothing" })
	for name, test := range map[string]struct {
		before, after []v1alpha1.Acknowledgement
		problem       string
	}{
		"one's own":                             {nil, []v1alpha1.Acknowledgement{ackOf(nil)}, ""},
		"a second one":                          {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{bobs, ackOf(nil)}, ""},
		"of fewer writes than there are":        {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.Count = 2 })}, ""},
		"none":                                  {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{bobs}, ""},
		"by a clock that is a minute slow":      {nil, []v1alpha1.Acknowledgement{ackOf(at(-time.Minute))}, ""},
		"by a clock that is a minute fast":      {nil, []v1alpha1.Acknowledgement{ackOf(at(time.Minute))}, ""},
		"dated back":                            {nil, []v1alpha1.Acknowledgement{ackOf(at(-time.Minute - time.Second))}, "present time"},
		"dated forward":                         {nil, []v1alpha1.Acknowledgement{ackOf(at(time.Minute + time.Second))}, "present time"},
		"without a time":                        {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.At = metav1.Time{} })}, "present time"},
		"in the name of another user":           {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.By = "bob" })}, `by must be "alice"`},
		"in nobody's name":                      {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.By = "" })}, `by must be "alice"`},
		"of writes that are still to come":      {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.Count = 4 })}, "count"},
		"of no write":                           {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.Count = 0 })}, "count"},
		"with a note of blanks":                 {nil, []v1alpha1.Acknowledgement{ackOf(func(a *v1alpha1.Acknowledgement) { a.Note = " \t" })}, "note"},
		"two at once":                           {nil, []v1alpha1.Acknowledgement{ackOf(nil), ackOf(nil)}, "one"},
		"a removal":                             {[]v1alpha1.Acknowledgement{bobs}, nil, "cannot be changed"},
		"a change":                              {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{other}, "cannot be changed"},
		"one in the place of another":           {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{ackOf(nil)}, "cannot be changed"},
		"one ahead of another":                  {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{ackOf(nil), bobs}, "cannot be changed"},
		"a second one and a change of the rest": {[]v1alpha1.Acknowledgement{bobs}, []v1alpha1.Acknowledgement{other, ackOf(nil)}, "cannot be changed"},
	} {
		request := acknowledging(t, recordOf(test.before...), recordOf(test.after...))
		got := unlockPolicy(t).Review(request).Decide(Facts{Now: after(0), Guard: guardUser})
		if got.Allowed != (test.problem == "") || !strings.Contains(got.Problem, test.problem) {
			t.Errorf("%s: allowed=%t, %q, want %q", name, got.Allowed, got.Problem, test.problem)
		}
		want := map[bool]Decision{true: {Reason: AckAccepted}, false: {Reason: AckRejected, Outcome: v1alpha1.Denied}}[test.problem == ""]
		if got.Reason != want.Reason || got.Outcome != want.Outcome || got.Object.String() != "auditrecords.guardian.apigw.io/record-a" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestAnAcknowledgementThatCannotBeReadIsRejected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Request){
		"another version":       func(r *Request) { r.GVR.Version = "v1beta1" },
		"the record itself":     func(r *Request) { r.Subresource = "" },
		"another subresource":   func(r *Request) { r.Subresource = "scale" },
		"a creation":            func(r *Request) { r.Operation = admissionv1.Create },
		"a deletion":            func(r *Request) { r.Operation = admissionv1.Delete },
		"no object":             func(r *Request) { r.Object = nil },
		"no old object":         func(r *Request) { r.OldObject = nil },
		"null":                  func(r *Request) { r.Object = rawjson.Value("null") },
		"a text for the status": func(r *Request) { r.Object = rawjson.Value(`{"status":"x"}`) },
		"a time that is none":   func(r *Request) { r.Object = rawjson.Value(`{"status":{"acknowledgements":[{"at":"x"}]}}`) },
	} {
		request := acknowledging(t, recordOf(), recordOf(ackOf(nil)))
		change(request)
		for _, mode := range []Mode{Enforce, Observe} {
			p := unlockPolicy(t)
			p.Mode = mode
			if got := p.Review(request).Decide(Facts{Now: after(0)}); got.Allowed || got.Reason != AckRejected {
				t.Errorf("%s, %s: got allowed=%t, %s", name, mode, got.Allowed, got.Reason)
			}
		}
	}
}

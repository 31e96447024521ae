// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// eventRecorder keeps Events as "APIVERSION KIND NAMESPACE/NAME REASON ACTION".
type eventRecorder struct{ seen, notes []string }

func (r *eventRecorder) Eventf(regarding, _ runtime.Object, _, reason, action, note string, args ...any) {
	object, _ := regarding.(*corev1.ObjectReference)
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
	} {
		t.Run(name, func(t *testing.T) {
			record := denied("jane", 1)
			record.Spec.Outcome, record.Spec.Object, record.Spec.Reason = test.outcome, test.object, "Why"
			recorder := &eventRecorder{}
			Events{Recorder: recorder, Set: set}.Announce(record)
			if got := strings.Join(recorder.seen, ", "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if test.want != "" && !strings.Contains(recorder.notes[0], "audit show "+record.Name) {
				t.Errorf("the note is %q", recorder.notes[0])
			}
		})
	}
}

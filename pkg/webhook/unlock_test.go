// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// unlocks are what a replica knows of the unlocks.
type unlocks struct {
	list  []v1alpha1.Unlock
	blind bool
	used  []string
}

func (u *unlocks) Facts() (policy.Facts, bool) {
	facts := policy.Facts{Now: metav1.Now()}
	if !u.blind {
		facts.Unlocks = u.list
	}
	return facts, !u.blind
}

func (u *unlocks) Used(name string) { u.used = append(u.used, name) }

// openForAdmin is an open Unlock of the user of the corpus.
func openForAdmin() v1alpha1.Unlock {
	now := time.Now()
	return v1alpha1.Unlock{
		ObjectMeta: metav1.ObjectMeta{Name: "unlock-a", CreationTimestamp: metav1.NewTime(now.Add(-time.Minute))},
		Spec: v1alpha1.UnlockSpec{
			Reservation: "apigw-ingress", Reason: "ticket 4711", RequestedBy: "admin", ExpiresAt: metav1.NewTime(now.Add(time.Minute)),
		},
	}
}

func newUnlockHandler(t *testing.T, known *unlocks) (*Handler, *kept) {
	t.Helper()
	handler, recorder := newHandler(t, io.Discard, true), &kept{}
	handler.Policy.Unlocks.MaxDuration.Duration = time.Hour
	handler.Unlocks, handler.Recorder, handler.Hint = known, recorder, policy.DefaultHint
	return handler, recorder
}

func TestAWriteUnderAnUnlockIsRecordedAndAnnotated(t *testing.T) {
	t.Parallel()
	known := &unlocks{list: []v1alpha1.Unlock{openForAdmin()}}
	handler, recorder := newUnlockHandler(t, known)
	answer := answerOf(t, post(t, handler, named(t, "role-verbs")))
	want := map[string]string{
		"decision": "allow", "reason": "Unlocked", "operation": "UPDATE", "outcome": "Unlocked", "record": "name", "unlock": "unlock-a",
		"resource": "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole",
	}
	if diff := cmp.Diff(want, answer.AuditAnnotations); diff != "" || !answer.Allowed {
		t.Errorf("allowed %t (-want +got)\n%s", answer.Allowed, diff)
	}
	if len(recorder.events) != 1 {
		t.Fatalf("got %d events, want one", len(recorder.events))
	}
	event := recorder.events[0]
	if event.Outcome != v1alpha1.Unlocked || event.Unlock != "unlock-a" || event.Justification != "ticket 4711" || event.User.Name != "admin" {
		t.Errorf("got %+v", event)
	}
	if diff := cmp.Diff([]string{"unlock-a"}, known.used); diff != "" {
		t.Errorf("used (-want +got)\n%s", diff)
	}
}

// A dry-run is answered as the write would be, and leaves no trace.
func TestADryRunUnderAnUnlockIsNoUseOfIt(t *testing.T) {
	t.Parallel()
	known := &unlocks{list: []v1alpha1.Unlock{openForAdmin()}}
	handler, recorder := newUnlockHandler(t, known)
	body := strings.Replace(string(named(t, "role-verbs")), `"dryRun":false`, `"dryRun":true`, 1)
	if body == string(named(t, "role-verbs")) {
		t.Fatal("the review has no dryRun")
	}
	answer := answerOf(t, post(t, handler, []byte(body)))
	if !answer.Allowed || answer.AuditAnnotations["unlock"] != "unlock-a" || answer.AuditAnnotations["record"] != "" {
		t.Errorf("got allowed=%t, %v", answer.Allowed, answer.AuditAnnotations)
	}
	if len(known.used) > 0 || len(recorder.events) > 0 {
		t.Errorf("used %v, recorded %v", known.used, recorder.events)
	}
}

func TestADenialUsesNoUnlock(t *testing.T) {
	t.Parallel()
	closed := openForAdmin()
	closed.Spec.Closed = true
	known := &unlocks{list: []v1alpha1.Unlock{closed}}
	handler, _ := newUnlockHandler(t, known)
	answer := answerOf(t, post(t, handler, named(t, "role-verbs")))
	if _, annotated := answer.AuditAnnotations["unlock"]; answer.Allowed || annotated || len(known.used) > 0 {
		t.Errorf("got allowed=%t, %v, used %v", answer.Allowed, answer.AuditAnnotations, known.used)
	}
	if _, second, _ := strings.Cut(answer.Result.Message, "\n"); !strings.Contains(second, "apigw-guardian unlock --reason") {
		t.Errorf("the second line is %q", second)
	}
}

func TestABlindReplicaDeniesAndSaysSo(t *testing.T) {
	t.Parallel()
	known := &unlocks{list: []v1alpha1.Unlock{openForAdmin()}, blind: true}
	for hint, want := range map[string]string{policy.DefaultHint: blindHint, "See https://wiki.example": blindHint, "": ""} {
		handler, _ := newUnlockHandler(t, known)
		handler.Hint = hint
		answer := answerOf(t, post(t, handler, named(t, "role-verbs")))
		if _, second, _ := strings.Cut(answer.Result.Message, "\n"); answer.Allowed || second != want {
			t.Errorf("hint %q: got allowed=%t, %q", hint, answer.Allowed, answer.Result.Message)
		}
	}
}

// A handler without unlocks honours none and still has the time for exemptions.
func TestAHandlerWithoutUnlocksHonoursNone(t *testing.T) {
	t.Parallel()
	handler, _ := newUnlockHandler(t, nil)
	handler.Unlocks = nil
	if facts, seen := handler.facts(); !seen || facts.Unlocks != nil || time.Since(facts.Now.Time) > time.Minute {
		t.Errorf("got %+v, seen=%t", facts, seen)
	}
	if answerOf(t, post(t, handler, named(t, "role-verbs"))).Allowed {
		t.Error("allowed")
	}
}

// creation is a review of the creation of an Unlock, with a name that the API server generates.
const creation = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","operation":"CREATE","dryRun":false,
"kind":{"group":"guardian.apigw.io","version":"v1alpha1","kind":"Unlock"},
"resource":{"group":"guardian.apigw.io","version":"v1alpha1","resource":"unlocks"},"userInfo":{"username":"mallory"},
"object":{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Unlock","metadata":{"name":"unlock-x7k2p","generateName":"unlock-"},
"spec":{"reservation":"apigw-ingress","reason":"ticket 4711","requestedBy":"alice","expiresAt":"2026-11-28T08:00:00Z"}}}}`

func TestAForgedUnlockIsDeniedAndRecorded(t *testing.T) {
	t.Parallel()
	handler, recorder := newUnlockHandler(t, &unlocks{})
	answer := answerOf(t, post(t, handler, []byte(creation)))
	const message = `Unlock "unlock-x7k2p" is denied: spec.requestedBy must be "mallory", the user that creates it.`
	if answer.Allowed || answer.Result.Message != message+" [record name]" {
		t.Errorf("got allowed=%t, %q", answer.Allowed, answer.Result.Message)
	}
	want := map[string]string{
		"decision": "deny", "reason": "UnlockRejected", "operation": "CREATE", "outcome": "Denied", "record": "name",
		"resource": "unlocks.guardian.apigw.io/unlock-x7k2p",
	}
	if diff := cmp.Diff(want, answer.AuditAnnotations); diff != "" {
		t.Errorf("annotations (-want +got)\n%s", diff)
	}
	isUnlock := v1alpha1.ObjectReference{Group: "guardian.apigw.io", Resource: "unlocks", Name: "unlock-x7k2p"}
	if len(recorder.events) != 1 || recorder.events[0].Object != isUnlock || recorder.events[0].Message != message {
		t.Errorf("got %+v", recorder.events)
	}
	accepted := answerOf(t, post(t, handler, []byte(strings.NewReplacer(
		`"mallory"`, `"alice"`, "2026-11-28T08:00:00Z", time.Now().Add(time.Minute).UTC().Format(time.RFC3339)).Replace(creation))))
	if !accepted.Allowed || accepted.AuditAnnotations["reason"] != "UnlockAccepted" || len(recorder.events) != 1 {
		t.Errorf("got allowed=%t, %v, %d events", accepted.Allowed, accepted.AuditAnnotations, len(recorder.events))
	}
	keys := []string{"decision", "operation", "reason", "resource"}
	for key := range accepted.AuditAnnotations {
		if !slices.Contains(keys, key) {
			t.Errorf("annotation %s: %s", key, accepted.AuditAnnotations[key])
		}
	}
}

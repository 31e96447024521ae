// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

func TestOnlyAReplicaProvesAndOnlyItsSubject(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	replica, impostor := NewReplica(now), NewReplica(now)
	subject := Subject{Nonce: NewNonce(), Operation: "UPDATE", Resource: "secrets", Namespace: "kube-system"}
	published := map[string]string{
		replica.KeyAnnotation():                               replica.Publication(),
		guardian.ReplicaAnnotationPrefix + "0000000000000000": impostor.Publication(), // another key's ID
		guardian.ReplicaAnnotationPrefix + "junk":             "junk",
		"guardian.apigw.io/certificate":                       replica.Publication(),
	}
	keys := KeysOf(published)
	if len(keys) != 1 || !PublishedAt(published[replica.KeyAnnotation()]).Equal(now) {
		t.Fatalf("got %d keys", len(keys))
	}
	message := `admission webhook "x" denied the request: it is reserved.` + "\nTo change it: ...\n" + replica.Sign(subject)
	if !keys.Prove(message, subject) || strings.Contains(message, subject.Nonce) {
		t.Error("the replica's own proof is none, or holds the nonce")
	}
	others := map[string]func(*Subject){
		"another nonce":     func(s *Subject) { s.Nonce = NewNonce() },
		"another operation": func(s *Subject) { s.Operation = "CREATE" },
		"another resource":  func(s *Subject) { s.Resource = "serviceaccounts" },
		"another namespace": func(s *Subject) { s.Namespace = "" },
	}
	for name, change := range others {
		other := subject
		change(&other)
		if keys.Prove(message, other) {
			t.Errorf("it proves %s", name)
		}
	}
	for name, message := range map[string]string{
		"no message": "", "no proof": "denied", "an impostor's": impostor.Sign(subject), "junk": "proof: a b",
		"an impostor's under another ID": strings.Replace(impostor.Sign(subject), impostor.id, replica.id, 1),
		"one inside a line":              "x " + replica.Sign(subject),
	} {
		if keys.Prove(message, subject) {
			t.Errorf("%s is a proof", name)
		}
	}
}

func TestTheFormOfANonce(t *testing.T) {
	if first, second := NewNonce(), NewNonce(); !IsNonce(first) || first == second {
		t.Error("a new nonce is none, or not new")
	}
	for _, s := range []string{"", "true", strings.Repeat("A", 32), strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("a", 32) + "\n"} {
		if IsNonce(s) {
			t.Errorf("%q is a nonce", s)
		}
	}
}

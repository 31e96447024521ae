// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	notes := Notes{Client: fake.NewClientset(), Namespace: "guard", Name: "notes"}
	if stored, err := notes.Read(t.Context()); stored != nil || err != nil {
		t.Fatalf("an absent ConfigMap: got %v, %v", stored, err)
	}
	if _, err := notes.Write(t.Context(), "", map[string]*string{"a": new("1")}); !apierrors.IsNotFound(err) {
		t.Fatalf("a write to an absent ConfigMap: got %v", err)
	}
	owner := &metav1.OwnerReference{APIVersion: "v1", Kind: "Namespace", Name: "guard", UID: "u"}
	for _, key := range []string{"a", "b"} { // two processes find that it is absent
		if err := notes.Create(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		if _, err := notes.Write(t.Context(), "", map[string]*string{key: new("1")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := notes.Write(t.Context(), "", map[string]*string{"a": nil, "c": new("3")}); err != nil {
		t.Fatal(err)
	}
	stored, err := notes.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"b": "1", "c": "3"}, stored.Data); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]metav1.OwnerReference{*owner}, stored.OwnerReferences); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

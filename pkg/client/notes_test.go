// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestNotes(t *testing.T) {
	t.Parallel()
	fakes := fake.NewClientset()
	notes := Notes{Client: fakes, Namespace: "guard", Name: "notes"}
	if stored, err := notes.Read(t.Context()); stored != nil || err != nil {
		t.Fatalf("an absent ConfigMap: got %v, %v", stored, err)
	}
	if _, err := notes.Write(t.Context(), "", map[string]*string{"a": new("1")}); !apierrors.IsNotFound(err) {
		t.Fatalf("a write to an absent ConfigMap: got %v", err)
	}
	owner := &metav1.OwnerReference{APIVersion: "v1", Kind: "Namespace", Name: "guard", UID: "u"}
	isOwner := func(context.Context) (*metav1.OwnerReference, error) { return owner, nil }
	errGone := errors.New("gone")
	isGone := func(context.Context) (*metav1.OwnerReference, error) { return nil, errGone }
	if _, err := notes.Put(t.Context(), "", map[string]*string{"x": new("1")}, isGone); !errors.Is(err, errGone) {
		t.Fatalf("an owner that is gone: got %v", err)
	}
	if _, err := notes.Put(t.Context(), "", map[string]*string{"a": new("1")}, isOwner); err != nil {
		t.Fatal(err)
	}
	looks := 0
	fakes.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		looks++ // another process finds at the same time that it is absent, and is slower
		return looks == 1, nil, apierrors.NewNotFound(corev1.Resource("configmaps"), "notes")
	})
	if _, err := notes.Put(t.Context(), "", map[string]*string{"b": new("1")}, isOwner); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		stored, err := notes.Read(t.Context())
		if err != nil || stored.Data[key] != "1" {
			t.Errorf("key %s: got %v, %v", key, stored, err)
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func parse(t *testing.T, resource string) *Set {
	t.Helper()
	reservation, err := Parse("x.yaml", []byte(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation","metadata":{"name":"x"},
		"spec":{"owner":"x","resources":[{"resource":"`+resource+`","manifest":
		{"apiVersion":"example.org/v1","kind":"Datum","metadata":{"name":"a"}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewSet(reservation)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestCheckServed(t *testing.T) {
	t.Parallel()
	served := &metav1.APIResourceList{APIResources: []metav1.APIResource{
		{Name: "others", Kind: "Other"}, {Name: "data/status", Kind: "Datum"}, {Name: "data", Kind: "Datum"},
	}}
	namespaced := &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "data", Kind: "Datum", Namespaced: true}}}
	for name, test := range map[string]struct {
		resource string
		list     *metav1.APIResourceList
		err      error
		// notServed says that the error is ErrNotServed; says is part of it.
		notServed bool
		says      string
	}{
		"the plural is correct":    {resource: "data", list: served},
		"the plural is guessed":    {list: served, notServed: true, says: "resource: data"},
		"the plural is wrong":      {resource: "datas", list: served, notServed: true, says: "resource: data"},
		"the namespace is missing": {resource: "data", list: namespaced, notServed: true, says: "add metadata.namespace"},
		"the kind is absent":       {resource: "data", list: &metav1.APIResourceList{}, notServed: true, says: "kind example.org/v1, Kind=Datum"},
		"the group is absent":      {resource: "data", err: apierrors.NewNotFound(schema.GroupResource{}, ""), notServed: true, says: "install its CustomResourceDefinition"},
		"discovery fails":          {resource: "data", err: errors.New("connection refused"), says: "connection refused"},
	} {
		err := parse(t, test.resource).CheckServed(func(version string) (*metav1.APIResourceList, error) {
			if version != "example.org/v1" {
				t.Errorf("%s: asked for %q", name, version)
			}
			return test.list, test.err
		})
		if (err == nil) != (test.says == "") || errors.Is(err, ErrNotServed) != test.notServed {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v does not say %q", name, err, test.says)
		}
	}
}

// Of two resources of one kind, one may have the namespace that the other lacks.
func TestCheckServedLooksAtEachScope(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, "testdata/valid")
	err := set.CheckServed(func(version string) (*metav1.APIResourceList, error) {
		list := &metav1.APIResourceList{}
		for _, resource := range set.Resources() {
			if resource.GVR.GroupVersion().String() == version {
				list.APIResources = append(list.APIResources, metav1.APIResource{Name: resource.GVR.Resource, Kind: resource.Kind})
			}
		}
		return list, nil
	})
	for _, text := range []string{"roles.rbac.authorization.k8s.io/edge-system/edge-router", "configmaps/edge-system/edge-"} {
		if !errors.Is(err, ErrNotServed) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want ErrNotServed of %s", err, text)
		}
	}
	if strings.Contains(err.Error(), "clusterroles") {
		t.Errorf("got %v for a kind without a namespace", err)
	}
}

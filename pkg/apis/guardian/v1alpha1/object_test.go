// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import "testing"

func TestAnObjectReferenceIsOneString(t *testing.T) {
	t.Parallel()
	for text, object := range map[string]ObjectReference{
		"":                         {},
		"secrets":                  {Resource: "secrets"},
		"secrets/kube-system/x":    {Resource: "secrets", Namespace: "kube-system", Name: "x"},
		"namespaces/edge-system":   {Resource: "namespaces", Name: "edge-system"},
		"roles.rbac.example.org/x": {Group: "rbac.example.org", Resource: "roles", Name: "x"},
		"roles.rbac.example.org":   {Group: "rbac.example.org", Resource: "roles"},
		"leases.example.org/a/b.c": {Group: "example.org", Resource: "leases", Namespace: "a", Name: "b.c"},
	} {
		if got := object.String(); got != text {
			t.Errorf("String of %#v is %q, want %q", object, got, text)
		}
		if got := ParseObjectReference(text); got != object {
			t.Errorf("%q is read as %#v, want %#v", text, got, object)
		}
	}
}

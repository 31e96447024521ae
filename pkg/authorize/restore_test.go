// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

func TestRestore(t *testing.T) {
	role, secret := shop.Resource(t, shop.Reservation, "ClusterRole"), shop.Resource(t, shop.Reservation, "Secret")
	retired := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: guardNamespace, Name: lookup.RetirementsName},
		Data:       map[string]string{role.Reservation: `{"state":"Retired","since":"2026-11-28T08:00:00Z","by":"ann"}`},
	}
	labelled := shop.LiveAs(role, func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"x": "y"}) })
	t.Run("a field that differs", func(t *testing.T) {
		a, _, dynamicClient := newFake(t, []runtime.Object{shop.Clerk()}, []runtime.Object{labelled})
		_, _ = a.Restore(t.Context(), role) // the fake client cannot apply; e2e/drift restores each field
		if !slices.ContainsFunc(dynamicClient.Actions(), func(action clienttesting.Action) bool { return action.Matches("patch", "clusterroles") }) {
			t.Errorf("got %v", dynamicClient.Actions())
		}
	})
	t.Run("a retired reservation", func(t *testing.T) {
		a, _, _ := newFake(t, []runtime.Object{shop.Clerk(), retired}, []runtime.Object{labelled})
		a.cluster.Namespace = guardNamespace
		if line, err := a.Restore(t.Context(), role); !errors.Is(err, ErrRetired) {
			t.Errorf("got %+v, %v", line, err)
		}
	})
	t.Run("a deleted credential", func(t *testing.T) {
		noted := left(map[string]string{clerkKey: leftFor("uid-1", "clerk-token-own")})
		a, _, _ := newFake(t, []runtime.Object{shop.Clerk(), noted}, nil)
		a.cluster.Namespace = guardNamespace
		if line, err := a.Restore(t.Context(), secret); !errors.Is(err, ErrDeletedCredential) {
			t.Errorf("got %+v, %v", line, err)
		}
	})
}

func TestIsApplied(t *testing.T) {
	role, account := shop.Resource(t, shop.Reservation, "ClusterRole"), shop.Resource(t, shop.Reservation, "ServiceAccount")
	owned := func(manager string, operation metav1.ManagedFieldsOperationType) *unstructured.Unstructured {
		object := role.Object()
		object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: manager, Operation: operation}})
		return object
	}
	for name, test := range map[string]struct {
		object live.Object
		want   bool
	}{
		"by this program":               {live.Object{Resource: role, Live: owned("apigw-guardian", "Apply")}, true},
		"by an update of this program":  {live.Object{Resource: role, Live: owned("apigw-guardian", "Update")}, false},
		"by another client":             {live.Object{Resource: role, Live: owned("helm", "Apply")}, false},
		"absent":                        {live.Object{Resource: role}, false},
		"an account, which has nothing": {live.Object{Resource: account, Live: account.Object()}, false},
	} {
		if got := IsApplied(test.object); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

const guardNamespace = "guard-system"

// refuseSecrets makes a fake client answer as RBAC does for the init job: it may read the reserved Secret, and no other.
func refuseSecrets(client *fake.Clientset) {
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), "", errors.New("no access"))
	client.PrependReactor("list", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, forbidden })
	client.PrependReactor("get", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return action.(clienttesting.GetAction).GetName() != "clerk-token-own", nil, forbidden
	})
}

func left(data map[string]string) *corev1.ConfigMap {
	stored := &corev1.ConfigMap{Data: data}
	stored.Namespace, stored.Name = guardNamespace, lookup.CredentialsName
	return stored
}

const clerkKey = "kube-system.clerk"

func leftFor(uid, secret string) string {
	return `{"namespace":"kube-system","account":"clerk","accountUID":"` + uid + `","secret":"` + secret + `","exists":true}`
}

func TestTheGuardIsToldWhichTokenSecretIsInUse(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	tests := map[string]struct {
		objects []runtime.Object
		// own says that the reserved Secret is there.
		own     bool
		limited bool
		want    map[string]string
		line    Line
	}{
		"the reserved one, before it is created": {
			objects: []runtime.Object{shop.Clerk()},
			want:    map[string]string{clerkKey: leftFor("uid-1", "clerk-token-own")},
			line:    Line{Outcome: Created, Name: "clerk-token-own"},
		},
		"an older one that is adopted": {
			objects: []runtime.Object{shop.Clerk(), shop.TokenSecret("clerk-token-x")},
			want:    map[string]string{clerkKey: leftFor("uid-1", "clerk-token-x")},
			line:    Line{Outcome: Adopted, Name: "clerk-token-x"},
		},
		"the reserved one, once the older one is gone": {
			objects: []runtime.Object{shop.Clerk(), left(map[string]string{clerkKey: leftFor("uid-1", "clerk-token-x")})},
			want:    map[string]string{clerkKey: leftFor("uid-1", "clerk-token-own")},
			line:    Line{Outcome: Created, Name: "clerk-token-own"},
		},
		"the reserved one of an account that was created again": {
			objects: []runtime.Object{shop.Clerk(), left(map[string]string{clerkKey: leftFor("uid-0", "clerk-token-x")})}, limited: true,
			want: map[string]string{clerkKey: leftFor("uid-1", "clerk-token-own")},
			line: Line{Outcome: Created, Name: "clerk-token-own"},
		},
		"one that the init job may not see": {
			objects: []runtime.Object{shop.Clerk(), shop.TokenSecret("clerk-token-x"), left(map[string]string{clerkKey: leftFor("uid-1", "clerk-token-x")})},
			limited: true,
			want:    map[string]string{clerkKey: leftFor("uid-1", "clerk-token-x")},
			line:    Line{Outcome: Adopted, Name: "clerk-token-x", Unproved: true},
		},
		"the reserved one that is there, whatever was left": {
			objects: []runtime.Object{shop.Clerk(), left(map[string]string{clerkKey: "broken", "mall.robot": "kept"})}, own: true,
			want: map[string]string{clerkKey: leftFor("uid-1", "clerk-token-own"), "mall.robot": "kept"},
			line: Line{Outcome: Unchanged, Name: "clerk-token-own"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var dynamicObjects []runtime.Object
			if test.own {
				dynamicObjects = append(dynamicObjects, shop.LiveAs(entry, appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, "")))
			}
			a, client, dynamicClient := newFake(t, test.objects, dynamicObjects)
			a.cluster.Namespace = guardNamespace
			if test.limited {
				refuseSecrets(client)
			}
			acceptPatches(dynamicClient, entry, nil)
			line, err := a.put(t.Context(), entry, Options{})
			if err != nil {
				t.Fatal(err)
			}
			test.line.Resource = entry.String()
			if diff := cmp.Diff(test.line, line); diff != "" {
				t.Errorf("line: -want +got:\n%s", diff)
			}
			stored, err := client.CoreV1().ConfigMaps(guardNamespace).Get(t.Context(), lookup.CredentialsName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, stored.Data); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			client.ClearActions()
			if _, err := a.put(t.Context(), entry, Options{}); err != nil && test.own {
				t.Fatal(err)
			}
			for _, action := range client.Actions() {
				if action.GetVerb() != "get" && action.GetVerb() != "list" {
					t.Errorf("the second run made a %s of %s", action.GetVerb(), action.GetResource().Resource)
				}
			}
		})
	}
}

// The API server answers an apply in a namespace that is absent by NotFound.
func TestWithoutTheGuardsNamespace(t *testing.T) {
	tests := map[string]struct {
		older      []runtime.Object
		mayCreate  bool
		namespaces int
	}{
		"the reserved Secret needs no note":                         {mayCreate: true},
		"an older Secret is left for the guard to come":             {[]runtime.Object{shop.TokenSecret("clerk-token-x")}, true, 1},
		"an older Secret is adopted by who may create no namespace": {[]runtime.Object{shop.TokenSecret("clerk-token-x")}, false, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry := shop.Resource(t, shop.Reservation, "Secret")
			a, client, dynamicClient := newFake(t, append(test.older, shop.Clerk()), nil)
			a.cluster.Namespace = guardNamespace
			acceptPatches(dynamicClient, entry, nil)
			exists := false
			client.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
				return !exists, nil, apierrors.NewNotFound(corev1.Resource("namespaces"), guardNamespace)
			})
			client.PrependReactor("create", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
				exists = test.mayCreate
				return !exists, nil, apierrors.NewForbidden(corev1.Resource("namespaces"), "", errors.New("no access"))
			})
			if _, err := a.put(t.Context(), entry, Options{}); err != nil {
				t.Fatal(err)
			}
			namespaces, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
			if err != nil || len(namespaces.Items) != test.namespaces {
				t.Errorf("got %d namespaces, %v", len(namespaces.Items), err)
			}
		})
	}
}

func TestNotePermissions(t *testing.T) {
	a, _, _ := newFake(t, nil, nil)
	if got := a.notePermissions(); got != nil {
		t.Errorf("without a namespace: got %v", got)
	}
	a.cluster.Namespace = guardNamespace
	const name = "configmaps/apigw-guardian-credentials -n guard-system"
	if diff := cmp.Diff("get "+name+"; create "+name+"; patch "+name, join(a.notePermissions())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

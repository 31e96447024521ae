// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func newFake(t *testing.T, typed, dynamic []runtime.Object) (*Authorizer, *fake.Clientset, *dynamicfake.FakeDynamicClient) {
	t.Helper()
	client, dynamicClient := shop.Fakes(typed, dynamic)
	return New(live.Cluster{
		Client: client, Dynamic: dynamicClient, Config: &rest.Config{}, Set: shop.Set(t, shop.Reservation),
	}), client, dynamicClient
}

// acceptPatches answers each patch with what the cluster would make of it, as far as the answer is looked at: the manifest,
// changed by f. It returns the kinds of the patches that came.
func acceptPatches(client *dynamicfake.FakeDynamicClient, entry *reserved.Resource, f func(*unstructured.Unstructured)) *[]string {
	var kinds []string
	client.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		kinds = append(kinds, string(action.(clienttesting.PatchAction).GetPatchType()))
		return true, shop.LiveAs(entry, f), nil
	})
	return &kinds
}

func appliedBy(manager string, operation metav1.ManagedFieldsOperationType, subresource string) func(*unstructured.Unstructured) {
	return func(object *unstructured.Unstructured) {
		object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: manager, Operation: operation, Subresource: subresource}})
	}
}

const (
	applyKind = "application/apply-patch+yaml"
	mergeKind = "application/merge-patch+json"
)

func TestPut(t *testing.T) {
	const role = "clusterroles.rbac.authorization.k8s.io/selling"
	ours := appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, "")
	line := func(outcome Outcome, paths ...string) Line {
		return Line{Resource: role, Outcome: outcome, Name: "selling", Paths: paths}
	}
	tests := map[string]struct {
		kind   string
		absent bool
		live   func(*unstructured.Unstructured)
		repair bool
		// after is what the cluster answers to a write.
		after   func(*unstructured.Unstructured)
		want    Line
		patches []string
		err     error
	}{
		"what is absent is created":         {absent: true, want: line(Created), patches: []string{applyKind}},
		"what is ours is not written again": {live: ours, want: line(Unchanged)},
		"what somebody else applied is adopted": {
			live: appliedBy("kubectl", metav1.ManagedFieldsOperationApply, ""), want: line(Adopted), patches: []string{applyKind},
		},
		"what we only updated is adopted": {
			live: appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationUpdate, ""), want: line(Adopted), patches: []string{applyKind},
		},
		"what we applied to a subresource is adopted": {
			live: appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, "status"), want: line(Adopted), patches: []string{applyKind},
		},
		"what has no field to own is unchanged": {
			kind: "ServiceAccount",
			want: Line{Resource: "serviceaccounts/kube-system/clerk", Outcome: Unchanged, Name: "clerk"},
		},
		"what differs is repaired in one write, and then applied": {
			live: all(ours, set([]any{}, "rules")), repair: true, want: line(Repaired, "rules"), patches: []string{mergeKind, applyKind},
		},
		"what differs is left alone unless asked for": {live: all(ours, set([]any{}, "rules")), err: ErrDiffers},
		"what cannot be repaired is left alone": {
			kind: "ClusterRoleBinding", live: set("view", "roleRef", "name"), repair: true, err: ErrDiffers,
		},
		"what the cluster turns into something else is an error": {
			absent: true, after: set("x", "metadata", "labels", "a"), patches: []string{applyKind}, err: ErrDiffers,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.kind == "" {
				test.kind = "ClusterRole"
			}
			entry := shop.Resource(t, shop.Reservation, test.kind)
			var objects []runtime.Object
			if !test.absent {
				objects = append(objects, shop.LiveAs(entry, test.live))
			}
			a, _, dynamicClient := newFake(t, nil, objects)
			patches := acceptPatches(dynamicClient, entry, test.after)
			got, err := a.put(t.Context(), entry, Options{Repair: test.repair})
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.patches, *patches); diff != "" {
				t.Errorf("patches: -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestPutUsesAnOlderTokenSecret(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	a, _, dynamicClient := newFake(t, []runtime.Object{shop.Clerk(), shop.TokenSecret("clerk-token-x")}, nil)
	patches := acceptPatches(dynamicClient, entry, nil)
	got, err := a.put(t.Context(), entry, Options{Repair: true})
	want := Line{Resource: "secrets/kube-system/clerk-token-*", Outcome: Adopted, Name: "clerk-token-x"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || len(*patches) > 0 {
		t.Errorf("got %v and patches %v; -want +got:\n%s", err, *patches, diff)
	}
}

func TestPutPrefersTheOwnTokenSecret(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	a, _, _ := newFake(t, []runtime.Object{shop.Clerk(), shop.TokenSecret("clerk-token-a")},
		[]runtime.Object{shop.LiveAs(entry, appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, ""))})
	got, err := a.put(t.Context(), entry, Options{})
	if err != nil || got.Outcome != Unchanged || got.Name != "clerk-token-own" {
		t.Errorf("got %+v and %v", got, err)
	}
}

func TestPutLooksAgainAfterAConflict(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "ClusterRole")
	a, _, dynamicClient := newFake(t, nil, []runtime.Object{shop.LiveAs(entry, set([]any{}, "rules"))})
	patches := acceptPatches(dynamicClient, entry, nil)
	conflicts := 1
	dynamicClient.PrependReactor("patch", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		if conflicts == 0 {
			return false, nil, nil
		}
		conflicts--
		return true, nil, apierrors.NewConflict(entry.GVR.GroupResource(), entry.Name, errors.New("it has changed"))
	})
	got, err := a.put(t.Context(), entry, Options{Repair: true})
	if err != nil || got.Outcome != Repaired || len(*patches) != 2 {
		t.Errorf("got %+v, %v and patches %v", got, err, *patches)
	}
}

func TestAuthorizeWritesNothingWhenACheckFails(t *testing.T) {
	role := shop.LiveAs(shop.Resource(t, shop.Reservation, "ClusterRole"), set([]any{}, "rules"))
	a, client, dynamicClient := newFake(t, nil, []runtime.Object{role})
	shop.Allow(client, func(spec authorizationv1.SelfSubjectAccessReviewSpec) bool {
		return spec.ResourceAttributes.Verb != "bind"
	})
	result, err := a.Authorize(t.Context(), Options{Report: func(line Line) { t.Errorf("reported %s", line) }})
	var failed *PreflightError
	if !errors.As(err, &failed) || len(result.Checks.Checks) != 7 {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{
		"admin-role: missing permissions: bind clusterroles.rbac.authorization.k8s.io/selling\n", adminRemedy,
		"existing-resources: clusterroles.rbac.authorization.k8s.io/selling differs from its manifest in rules\n", repairRemedy,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	for _, action := range append(client.Actions(), dynamicClient.Actions()...) {
		isQuestion := action.GetVerb() == "get" || action.GetVerb() == "list" || action.GetResource().Resource == "selfsubjectaccessreviews"
		if !isQuestion {
			t.Errorf("there was a %s of %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}

func TestExistingResources(t *testing.T) {
	role, binding := shop.Resource(t, shop.Reservation, "ClusterRole"), shop.Resource(t, shop.Reservation, "ClusterRoleBinding")
	tests := map[string]struct {
		live         []runtime.Object
		repair       bool
		want         Status
		says, remedy string
	}{
		"an empty cluster passes": {want: Pass, says: "clusterroles.rbac.authorization.k8s.io/selling is absent"},
		"an equal resource passes": {
			live: []runtime.Object{shop.LiveAs(role, nil)}, want: Pass, says: "selling equals its manifest",
		},
		"a resource that differs fails, with the paths": {
			live: []runtime.Object{shop.LiveAs(role, set("x", "metadata", "labels", "a"))}, want: Fail, says: "metadata.labels", remedy: repairRemedy,
		},
		"a resource that differs passes when it is to be repaired": {
			live: []runtime.Object{shop.LiveAs(role, set("x", "metadata", "labels", "a"))}, repair: true, want: Pass, says: "will be repaired in metadata.labels",
		},
		"a field that nobody can repair fails in any case": {
			live: []runtime.Object{shop.LiveAs(binding, set("view", "roleRef", "name"))}, repair: true, want: Fail, says: "roleRef.name", remedy: deleteRemedy,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, nil, test.live)
			check := a.checkExisting(t.Context(), test.repair)
			if check.Status != test.want || !strings.Contains(check.Message, test.says) || check.Remedy != test.remedy {
				t.Errorf("got %+v", check)
			}
		})
	}
}

var errBroken = errors.New("broken")

func TestMissingNamespaceFails(t *testing.T) {
	a, client, _ := newFake(t, nil, nil)
	a.cluster.Set = shop.Set(t, strings.ReplaceAll(shop.Reservation, "kube-system", "mall"))
	check := a.checkExisting(t.Context(), false)
	if check.Status != Fail || !strings.Contains(check.Remedy, "kubectl create namespace mall") {
		t.Errorf("got %+v", check)
	}
	client.PrependReactor("get", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errBroken })
	if check := a.checkExisting(t.Context(), false); check.Status != Unknown {
		t.Errorf("got %+v", check)
	}
}

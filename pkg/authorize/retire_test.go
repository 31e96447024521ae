// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// fakeUnlocks opens an Unlock in a state.
type fakeUnlocks struct {
	state  v1alpha1.UnlockState
	opened []v1alpha1.Unlock
	closed []string
}

func (f *fakeUnlocks) List(context.Context) ([]v1alpha1.Unlock, error) { return f.opened, nil }

func (f *fakeUnlocks) Open(_ context.Context, spec v1alpha1.UnlockSpec, duration time.Duration) (*v1alpha1.Unlock, error) {
	spec.RequestedBy, spec.ExpiresAt = "ann", metav1.NewTime(time.Now().Add(duration))
	f.opened = append(f.opened, v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{Name: "unlock-1"}, Spec: spec})
	return &f.opened[len(f.opened)-1], nil
}

func (f *fakeUnlocks) Await(_ context.Context, name string, _ ...v1alpha1.UnlockState) (*v1alpha1.Unlock, error) {
	u := &v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{Name: name}}
	u.Status.Replicas = map[string]v1alpha1.UnlockState{"a": f.state}
	return u, nil
}

func (f *fakeUnlocks) Close(_ context.Context, name string) (*v1alpha1.Unlock, error) {
	f.closed = append(f.closed, name)
	return &v1alpha1.Unlock{}, nil
}

// fakeRecords keeps what is stored.
type fakeRecords struct{ stored []*v1alpha1.AuditRecord }

func (f *fakeRecords) Merge(_ context.Context, record, _ *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error) {
	f.stored = append(f.stored, record)
	return record, nil
}

// shopToRetire returns a cluster that is authorized and guarded. It refuses every token once the ServiceAccount is gone, unless
// stubborn.
func shopToRetire(t *testing.T, stubborn bool) (*Authorizer, *fake.Clientset, *dynamicfake.FakeDynamicClient) {
	t.Helper()
	guarded := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: guardian.WebhookConfiguration}}
	var stored []runtime.Object
	for _, resource := range shop.Set(t, shop.Reservation).Resources() {
		stored = append(stored, shop.LiveAs(resource, func(o *unstructured.Unstructured) {
			if resource.IsTokenSecret() {
				token := base64.StdEncoding.EncodeToString([]byte(shop.TokenFor(o.GetName())))
				_ = unstructured.SetNestedField(o.Object, token, "data", "token")
				o.SetLabels(map[string]string{reserved.LastUsedLabel: "2026-11-28"})
			}
			if resource.IsServiceAccount() {
				o.SetUID("uid-1")
			}
			o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl-edit"}})
		}))
	}
	a, client, dynamicClient := newFake(t, []runtime.Object{shop.Clerk(), guarded}, stored)
	a.cluster.Namespace = guardNamespace
	client.PrependReactor("create", "selfsubjectreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		review := &authenticationv1.SelfSubjectReview{}
		review.Status.UserInfo.Username = "ann"
		return true, review, nil
	})
	client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return action.GetSubresource() == "token", &authenticationv1.TokenRequest{
			Status: authenticationv1.TokenRequestStatus{Token: "bound.canary.token"},
		}, nil
	})
	a.connect = func(*rest.Config) (kubernetes.Interface, error) {
		asToken := fake.NewClientset()
		asToken.PrependReactor("create", "selfsubjectreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
			account := shop.Resource(t, shop.Reservation, "ServiceAccount")
			if live, err := a.cluster.Get(t.Context(), account, account.Name); err != nil || live != nil || stubborn {
				return true, &authenticationv1.SelfSubjectReview{}, err
			}
			return true, nil, apierrors.NewUnauthorized("")
		})
		return asToken, nil
	}
	return a, client, dynamicClient
}

func retirement(t *testing.T, unlocks Unlocks, records Records) Revocation {
	t.Helper()
	return Revocation{
		Reservation: shop.Parse(t, shop.Reservation), Reason: "retire shop", Unlocks: unlocks, Records: records, Wait: 20 * time.Second,
	}
}

func TestRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, client, dynamicClient := shopToRetire(t, false)
		unlocks, records := &fakeUnlocks{state: v1alpha1.UnlockOpen}, &fakeRecords{}
		start := time.Now()
		result, err := a.Retire(t.Context(), retirement(t, unlocks, records))
		if err != nil {
			t.Fatal(err)
		}
		var deleted []string
		for _, action := range dynamicClient.Actions() {
			if action.GetVerb() == "delete" {
				deleted = append(deleted, action.GetResource().Resource)
			}
		}
		if diff := cmp.Diff([]string{"clusterrolebindings", "secrets", "serviceaccounts", "clusterroles"}, deleted); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if took := time.Since(start); took < tokenCache {
			t.Errorf("it took %v: an API server may still know the tokens", took)
		}
		refused := slices.DeleteFunc(slices.Clone(result.Steps), func(s Step) bool { return s.Outcome != "refused (401)" })
		if len(refused) != 2 || result.Retired.State != lookup.Retired || result.Retired.By != "ann" {
			t.Errorf("got %+v", result)
		}
		if !slices.Equal(unlocks.closed, []string{"unlock-1"}) || len(records.stored) != 1 || records.stored[0].Spec.Outcome != v1alpha1.Retired {
			t.Errorf("closed %v, stored %+v", unlocks.closed, records.stored)
		}
		if _, err := client.CoreV1().Secrets(guardNamespace).Get(t.Context(), retiringSecret, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the old tokens are still stored: %v", err)
		}
		_, err = a.Authorize(t.Context(), Options{})
		if !errors.Is(err, ErrRetired) || !strings.Contains(err.Error(), "authorize --again") {
			t.Errorf("authorize: %v", err)
		}
		left, retired, err := a.Unretired(t.Context())
		if err != nil || len(left) > 0 || len(retired) != 1 || !errors.Is(retired[0], ErrRetired) {
			t.Errorf("got %v, %v, %v", left, retired, err)
		}
		if again, err := a.retired(t.Context(), Options{Again: true}); err != nil || len(again) != 1 || again[0].Name != "shop" {
			t.Errorf("got %v, %v", again, err)
		}
		if err := a.unmark(t.Context(), "shop"); err != nil {
			t.Error(err)
		}
		if again, err := a.retired(t.Context(), Options{}); err != nil || again != nil {
			t.Errorf("unmarked: got %v, %v", again, err)
		}
	})
}

// The chart's Job may read and delete the reserved token Secret only.
func TestRetireWithoutListingSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, client, dynamicClient := shopToRetire(t, false)
		dynamicClient.PrependReactor("list", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "", nil)
		})
		refuseCreation := func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.GetVerb() == "create", nil, apierrors.NewForbidden(action.GetResource().GroupResource(), "", nil)
		}
		for _, resource := range []string{"namespaces", "configmaps", "secrets"} { // created by PATCH, not by POST
			client.PrependReactor("create", resource, refuseCreation)
		}
		result, err := a.Retire(t.Context(), retirement(t, &fakeUnlocks{state: v1alpha1.UnlockOpen}, &fakeRecords{}))
		deleted := slices.DeleteFunc(slices.Clone(result.Steps), func(s Step) bool { return s.Outcome != "deleted" })
		if err != nil || len(deleted) != 4 || result.Retired.State != lookup.Retired {
			t.Errorf("got %+v, %v", result, err)
		}
	})
}

func TestRetireFails(t *testing.T) {
	tests := map[string]struct {
		state    v1alpha1.UnlockState
		stubborn bool
		want     error
		deletes  bool
	}{
		"before the first write while the unlock is not approved": {state: v1alpha1.UnlockPending, want: ErrApproval},
		"if a token is accepted after the time limit":             {v1alpha1.UnlockOpen, true, ErrTokenAccepted, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, client, dynamicClient := shopToRetire(t, test.stubborn)
				records := &fakeRecords{}
				_, err := a.Retire(t.Context(), retirement(t, &fakeUnlocks{state: test.state}, records))
				if !errors.Is(err, test.want) || strings.Contains(err.Error(), "canary") {
					t.Errorf("got %v", err)
				}
				hasDeleted := slices.ContainsFunc(dynamicClient.Actions(), func(a clienttesting.Action) bool { return a.GetVerb() == "delete" })
				_, getErr := client.CoreV1().Secrets(guardNamespace).Get(t.Context(), retiringSecret, metav1.GetOptions{})
				if hasDeleted != test.deletes || (getErr == nil) != test.deletes || len(records.stored) != 0 {
					t.Errorf("deleted: %t, tokens: %v, records: %d", hasDeleted, getErr, len(records.stored))
				}
			})
		})
	}
}

func TestPlan(t *testing.T) {
	a, client, _ := shopToRetire(t, false)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "till"}}
	other := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mall", Name: "also"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "selling"},
	}
	another := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "too"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "x"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: metav1.NamespaceSystem, Name: "clerk"}},
	}
	unrelated := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "no"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "x"}}
	for _, o := range []runtime.Object{pod, other, another, unrelated} {
		if err := client.Tracker().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	options := retirement(t, nil, nil)
	options.KeepClusterRole = true
	got, err := a.Plan(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	want := Plan{
		Reservation: "shop",
		Objects: []Step{
			{"clusterrolebindings.rbac.authorization.k8s.io/clerk-sells", "delete"},
			{"secrets/kube-system/clerk-token-own", "delete"},
			{"serviceaccounts/kube-system/clerk", "delete"},
			{"clusterroles.rbac.authorization.k8s.io/selling", "keep"},
		},
		LastUses: []Use{{"secrets/kube-system/clerk-token-own", "2026-11-28"}},
		Writes:   []Write{{Resource: "clusterroles.rbac.authorization.k8s.io/selling", Manager: "kubectl-edit"}},
		Bindings: []string{"clusterrolebindings/too", "rolebindings/mall/also"},
		Pods:     []string{"kube-system/till"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestADeletedCredentialIsNotRevived(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	note := func(uid string, exists bool) string {
		text := leftFor(uid, "clerk-token-own")
		if !exists {
			text = strings.Replace(text, `,"exists":true`, "", 1)
		}
		return text
	}
	tests := map[string]struct {
		note string
		want Status
	}{
		"a Secret that was there, of the live account":     {note("uid-1", true), Fail},
		"a Secret that was there, of an earlier account":   {note("uid-0", true), Pass},
		"a Secret that an interrupted authorize had noted": {note("uid-1", false), Pass},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, []runtime.Object{shop.Clerk(), left(map[string]string{clerkKey: test.note})}, nil)
			a.cluster.Namespace = guardNamespace
			got := a.checkResource(t.Context(), entry, true)
			if got.Status != test.want || (test.want == Fail) != strings.Contains(got.Remedy, "rotate") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

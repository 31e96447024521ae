// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

// olderSecret returns a token Secret of the clerk, changed by f.
func olderSecret(name string, f func(*corev1.Secret)) *corev1.Secret {
	secret := shop.TokenSecret(name)
	if f != nil {
		f(secret)
	}
	return secret
}

func newFake(t *testing.T, typed []runtime.Object) (Cluster, *fake.Clientset) {
	t.Helper()
	client, dynamicClient := shop.Fakes(typed, nil)
	return Cluster{Client: client, Dynamic: dynamicClient, Config: &rest.Config{}, Set: shop.Set(t, shop.Reservation)}, client
}

func TestOlderTokenSecrets(t *testing.T) {
	unfilled := func(s *corev1.Secret) { s.Data = nil; delete(s.Annotations, corev1.ServiceAccountUIDKey) }
	tests := map[string]struct {
		secrets         []runtime.Object
		usable, useless []string
	}{
		"one with any suffix is used": {
			secrets: []runtime.Object{olderSecret("clerk-token-x7k2p", nil)}, usable: []string{"clerk-token-x7k2p"},
		},
		"a filled one goes before one that is to be filled, and names decide then": {
			secrets: []runtime.Object{olderSecret("clerk-token-a", unfilled), olderSecret("clerk-token-c", nil), olderSecret("clerk-token-b", nil)},
			usable:  []string{"clerk-token-b", "clerk-token-c", "clerk-token-a"},
		},
		"one without the prefix is none of ours": {secrets: []runtime.Object{olderSecret("clerk-key", nil)}},
		"the manifest's own is not an older one": {secrets: []runtime.Object{olderSecret("clerk-token-own", nil)}},
		"one in another namespace is none of ours": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) { s.Namespace = "default" })},
		},
		"one of an earlier account of the same name is useless": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) {
				s.Annotations[corev1.ServiceAccountUIDKey] = "uid-0"
			})},
			useless: []string{"clerk-token-x"},
		},
		"one of another account is useless": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) {
				s.Annotations[corev1.ServiceAccountNameKey] = "eve"
			})},
			useless: []string{"clerk-token-x"},
		},
		"one of another type is useless": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })},
			useless: []string{"clerk-token-x"},
		},
		"a disabled one is useless": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) {
				s.Labels = map[string]string{invalidSinceLabel: "2026-01-01"}
			})},
			useless: []string{"clerk-token-x"},
		},
		"one that is being deleted is useless": {
			secrets: []runtime.Object{olderSecret("clerk-token-x", func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{} })},
			useless: []string{"clerk-token-x"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _ := newFake(t, append(test.secrets, shop.Clerk()))
			got, err := a.older(t.Context(), shop.Resource(t, shop.Reservation, "Secret"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]string{test.usable, test.useless}, [][]string{got.Usable, got.Useless}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOlderTokenSecretIsUselessWithoutItsAccount(t *testing.T) {
	a, _ := newFake(t, []runtime.Object{olderSecret("clerk-token-x", nil)})
	got, err := a.older(t.Context(), shop.Resource(t, shop.Reservation, "Secret"))
	if err != nil || got.InUse() != "" {
		t.Errorf("got %+v and %v", got, err)
	}
}

func TestOlderTokenSecretsWhereListingFails(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), "", errors.New("no access"))
	tests := map[string]struct {
		list, get error
		want      string
		fails     error
	}{
		"those that the account refers to are found without a list": {list: forbidden, want: "clerk-token-referred"},
		"none is found where those may not be read either":          {list: forbidden, get: forbidden},
		"any other error of the list is one":                        {list: errBroken, fails: errBroken},
		"any other error of a read is one":                          {list: forbidden, get: errBroken, fails: errBroken},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			account := shop.Clerk()
			account.Secrets = []corev1.ObjectReference{{Name: "other"}, {Name: "clerk-token-gone"}, {Name: "clerk-token-referred"}}
			a, client := newFake(t, []runtime.Object{account, olderSecret("clerk-token-referred", nil), olderSecret("clerk-token-a", nil)})
			fail := func(err error) clienttesting.ReactionFunc {
				return func(clienttesting.Action) (bool, runtime.Object, error) { return err != nil, nil, err }
			}
			client.PrependReactor("list", "secrets", fail(test.list))
			client.PrependReactor("get", "secrets", fail(test.get))
			got, err := a.older(t.Context(), shop.Resource(t, shop.Reservation, "Secret"))
			if got.InUse() != test.want || !errors.Is(err, test.fails) {
				t.Errorf("got %q and %v", got.InUse(), err)
			}
		})
	}
}

var errBroken = errors.New("broken")

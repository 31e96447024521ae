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
	clienttesting "k8s.io/client-go/testing"
)

// older returns a token Secret of the clerk, changed by f.
func older(name string, f func(*corev1.Secret)) *corev1.Secret {
	secret := tokenSecret(name)
	if f != nil {
		f(secret)
	}
	return secret
}

func TestOlderTokenSecrets(t *testing.T) {
	unfilled := func(s *corev1.Secret) { s.Data = nil; delete(s.Annotations, corev1.ServiceAccountUIDKey) }
	tests := map[string]struct {
		secrets         []runtime.Object
		usable, useless []string
	}{
		"one with any suffix is used": {
			secrets: []runtime.Object{older("clerk-token-x7k2p", nil)}, usable: []string{"clerk-token-x7k2p"},
		},
		"a filled one goes before one that is to be filled, and names decide then": {
			secrets: []runtime.Object{older("clerk-token-a", unfilled), older("clerk-token-c", nil), older("clerk-token-b", nil)},
			usable:  []string{"clerk-token-b", "clerk-token-c", "clerk-token-a"},
		},
		"one without the prefix is none of ours": {secrets: []runtime.Object{older("clerk-key", nil)}},
		"the manifest's own is not an older one": {secrets: []runtime.Object{older("clerk-token-own", nil)}},
		"one in another namespace is none of ours": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) { s.Namespace = "default" })},
		},
		"one of an earlier account of the same name is useless": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) {
				s.Annotations[corev1.ServiceAccountUIDKey] = "uid-0"
			})},
			useless: []string{"clerk-token-x"},
		},
		"one of another account is useless": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) {
				s.Annotations[corev1.ServiceAccountNameKey] = "eve"
			})},
			useless: []string{"clerk-token-x"},
		},
		"one of another type is useless": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })},
			useless: []string{"clerk-token-x"},
		},
		"a disabled one is useless": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) {
				s.Labels = map[string]string{invalidSinceLabel: "2026-01-01"}
			})},
			useless: []string{"clerk-token-x"},
		},
		"one that is being deleted is useless": {
			secrets: []runtime.Object{older("clerk-token-x", func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{} })},
			useless: []string{"clerk-token-x"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, append(test.secrets, clerk()), nil)
			got, err := a.olderTokenSecrets(t.Context(), entryOf(t, shop, "Secret"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]string{test.usable, test.useless}, [][]string{got.usable, got.useless}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOlderTokenSecretIsUselessWithoutItsAccount(t *testing.T) {
	a, _, _ := newFake(t, []runtime.Object{older("clerk-token-x", nil)}, nil)
	got, err := a.olderTokenSecrets(t.Context(), entryOf(t, shop, "Secret"))
	if err != nil || got.first() != "" {
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
			account := clerk()
			account.Secrets = []corev1.ObjectReference{{Name: "other"}, {Name: "clerk-token-gone"}, {Name: "clerk-token-referred"}}
			a, client, _ := newFake(t, []runtime.Object{account, older("clerk-token-referred", nil), older("clerk-token-a", nil)}, nil)
			fail := func(err error) clienttesting.ReactionFunc {
				return func(clienttesting.Action) (bool, runtime.Object, error) { return err != nil, nil, err }
			}
			client.PrependReactor("list", "secrets", fail(test.list))
			client.PrependReactor("get", "secrets", fail(test.get))
			got, err := a.olderTokenSecrets(t.Context(), entryOf(t, shop, "Secret"))
			if got.first() != test.want || !errors.Is(err, test.fails) {
				t.Errorf("got %q and %v", got.first(), err)
			}
		})
	}
}

var errBroken = errors.New("broken")

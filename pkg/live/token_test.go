// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

func TestDataDrift(t *testing.T) {
	tests := map[string]struct {
		secret *corev1.Secret
		want   []string
	}{
		"no Secret":                      {nil, nil},
		"a filled Secret":                {shop.Filled("", ""), nil},
		"a Secret that is to be filled":  {&corev1.Secret{}, nil},
		"a foreign CA":                   {shop.Filled("ca.crt", "foreign"), []string{"data[ca.crt]"}},
		"another namespace":              {shop.Filled("namespace", "default"), []string{"data.namespace"}},
		"a key more":                     {shop.Filled("a", ""), []string{"data.a"}},
		"a key with a dot more":          {shop.Filled("a.b", "x"), []string{"data[a.b]"}},
		"a CA that is not there yet":     {shop.Filled("ca.crt", ""), nil},
		"a token is looked at elsewhere": {shop.Filled("token", "garbage"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _ := newFake(t, []runtime.Object{shop.Published()})
			got, err := a.DataDrift(t.Context(), test.secret)
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
	a, _ := newFake(t, nil)
	if _, err := a.DataDrift(t.Context(), shop.Filled("", "")); err == nil {
		t.Error("no CA to compare with is no error")
	}
}

func TestTokenOf(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"a token of the live account is one": {func(*corev1.Secret) {}, shop.TokenFor("clerk-token-own")},
		"an empty Secret has none":           {func(s *corev1.Secret) { s.Data = nil }, ""},
		"an empty token is none":             {func(s *corev1.Secret) { s.Data["token"] = nil }, ""},
		"a token of an earlier account is none": {
			func(s *corev1.Secret) { s.Annotations[corev1.ServiceAccountUIDKey] = "uid-0" }, "",
		},
		"a token of no account is none": {func(s *corev1.Secret) { s.Annotations = nil }, ""},
		"garbage is none":               {func(s *corev1.Secret) { s.Data["token"] = []byte("garbage") }, ""},
		"a token of another account is none": {holding(policy.TokenClaims{
			Namespace: "kube-system", Secret: "clerk-token-own", Account: "eve", AccountUID: "uid-1",
		}), ""},
		"a token of another Secret is none": {holding(policy.TokenClaims{
			Namespace: "kube-system", Secret: "clerk-token-x", Account: "clerk", AccountUID: "uid-1",
		}), ""},
		"a token of another namespace is none": {holding(policy.TokenClaims{
			Namespace: "default", Secret: "clerk-token-own", Account: "clerk", AccountUID: "uid-1",
		}), ""},
		"a token with the uid of an earlier account is none": {holding(policy.TokenClaims{
			Namespace: "kube-system", Secret: "clerk-token-own", Account: "clerk", AccountUID: "uid-0",
		}), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			secret := shop.TokenSecret("clerk-token-own")
			test.change(secret)
			token, problem := tokenOf(secret, shop.Clerk())
			if token != test.want || (token == "") != (problem != "") {
				t.Errorf("got %q, problem %q", token, problem)
			}
		})
	}
}

func holding(claims policy.TokenClaims) func(*corev1.Secret) {
	return func(s *corev1.Secret) { s.Data["token"] = []byte(shop.TokenWith(claims)) }
}

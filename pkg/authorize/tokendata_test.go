// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// rootCA is what the cluster of a fake publishes. Equal bytes are the same CA, whatever they hold.
const rootCA = "the CA of the cluster"

func published() *corev1.ConfigMap {
	published := &corev1.ConfigMap{Data: map[string]string{"ca.crt": rootCA}}
	published.Namespace, published.Name = metav1.NamespaceSystem, "kube-root-ca.crt"
	return published
}

// filled returns the clerk's own Secret as kube-controller-manager fills it, changed by one key.
func filled(key, value string) *corev1.Secret {
	secret := tokenSecret("clerk-token-own")
	secret.Data["ca.crt"], secret.Data["namespace"] = []byte(rootCA), []byte(metav1.NamespaceSystem)
	if key != "" {
		secret.Data[key] = []byte(value)
	}
	return secret
}

func TestDataDrift(t *testing.T) {
	tests := map[string]struct {
		secret *corev1.Secret
		want   []string
	}{
		"no Secret":                      {nil, nil},
		"a filled Secret":                {filled("", ""), nil},
		"a Secret that is to be filled":  {&corev1.Secret{}, nil},
		"a foreign CA":                   {filled("ca.crt", "foreign"), []string{"data[ca.crt]"}},
		"another namespace":              {filled("namespace", "default"), []string{"data.namespace"}},
		"a key more":                     {filled("a", ""), []string{"data.a"}},
		"a key with a dot more":          {filled("a.b", "x"), []string{"data[a.b]"}},
		"a CA that is not there yet":     {filled("ca.crt", ""), nil},
		"a token is looked at elsewhere": {filled("token", "garbage"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, []runtime.Object{published()}, nil)
			got, err := a.dataDrift(t.Context(), test.secret)
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
	a, _, _ := newFake(t, nil, nil)
	if _, err := a.dataDrift(t.Context(), filled("", "")); err == nil {
		t.Error("no CA to compare with is no error")
	}
}

func TestOnlyTheCAOfATokenSecretCanBeRepaired(t *testing.T) {
	f := found{entry: entryOf(t, shop, "Secret"), drift: []string{"data.namespace", rootCAPath, "data[a.b]"}}
	if diff := cmp.Diff([]string{"data.namespace", "data[a.b]"}, f.irreparable()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRenewCAWaitsForTheControllerManager(t *testing.T) {
	entry := entryOf(t, shop, "Secret")
	for name, test := range map[string]struct {
		ca   string
		want error
	}{"that writes it": {rootCA, nil}, "that does not": {"foreign", ErrDiffers}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, client, dynamicClient := newFake(t, []runtime.Object{published(), filled("ca.crt", "foreign")}, nil)
				patches := acceptPatches(dynamicClient, entry, nil)
				time.AfterFunc(10*time.Second, func() {
					if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Update(
						t.Context(), filled("ca.crt", test.ca), metav1.UpdateOptions{}); err != nil {
						t.Error(err)
					}
				})
				err := a.renewCA(t.Context(), found{entry: entry, live: liveAs(entry, nil)}, time.Minute)
				if !errors.Is(err, test.want) || len(*patches) != 2 {
					t.Errorf("got %v and patches %v", err, *patches)
				}
			})
		})
	}
}

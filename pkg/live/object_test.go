// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

func TestCompareSeesTheDataOfATokenSecret(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	for name, test := range map[string]struct {
		ca   string
		want []string
	}{
		"the CA of the cluster": {shop.RootCA, nil},
		"another CA":            {"another", []string{RootCAPath}},
	} {
		secret := shop.LiveAs(entry, func(o *unstructured.Unstructured) {
			o.Object["data"] = map[string]any{corev1.ServiceAccountRootCAKey: base64.StdEncoding.EncodeToString([]byte(test.ca))}
		})
		client, dynamicClient := shop.Fakes([]runtime.Object{shop.Published()}, []runtime.Object{secret})
		c := Cluster{Client: client, Dynamic: dynamicClient, Config: &rest.Config{}, Set: shop.Set(t, shop.Reservation)}
		o, err := c.Compare(t.Context(), entry)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, o.Drift); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// An object that cannot be read must not look like one that is absent: authorize would create it.
func TestOnlyNotFoundIsAbsent(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "ClusterRole")
	for name, test := range map[string]struct{ answer, want error }{
		"not found":     {apierrors.NewNotFound(entry.GVR.GroupResource(), entry.Name), nil},
		"another error": {errBroken, errBroken},
	} {
		client, dynamicClient := shop.Fakes(nil, nil)
		dynamicClient.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
		o, err := Cluster{Client: client, Dynamic: dynamicClient}.Find(t.Context(), entry)
		if !errors.Is(err, test.want) || o.Live != nil {
			t.Errorf("%s: got %v, %v", name, o.Live, err)
		}
	}
}

func TestANoteIsOfTheLiveAccountOnly(t *testing.T) {
	for uid, want := range map[string]string{"uid-1": "clerk-token-x", "uid-0": ""} {
		note := &corev1.ConfigMap{Data: map[string]string{
			"kube-system.clerk": `{"namespace":"kube-system","account":"clerk","accountUID":"` + uid + `","secret":"clerk-token-x"}`,
		}}
		note.Namespace, note.Name = "guard", lookup.CredentialsName
		c, client := newFake(t, []runtime.Object{shop.Clerk(), note})
		c.Namespace = "guard"
		client.PrependReactor("*", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), "", errors.New("no access"))
		})
		got, err := c.older(t.Context(), shop.Resource(t, shop.Reservation, "Secret"))
		if err != nil || got.InUse() != want || got.IsUnread() != (want != "") {
			t.Errorf("noted for %s: got %q, %v, want %q", uid, got.InUse(), err, want)
		}
	}
}

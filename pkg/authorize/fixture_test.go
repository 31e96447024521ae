// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// shop is a reservation with one of each kind that this package treats in its own way.
const shop = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: shop}
spec:
  owner: Shop
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: kube-system, name: clerk}}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: ClusterRole
      metadata: {name: selling}
      rules:
      - {apiGroups: [""], resources: [pods, pods/log], verbs: [get]}
      - {apiGroups: [apps], resources: [deployments], resourceNames: [till], verbs: ["*"]}
      - {nonResourceURLs: [/healthz], verbs: [get]}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: ClusterRoleBinding
      metadata: {name: clerk-sells}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: selling}
      subjects: [{kind: ServiceAccount, name: clerk, namespace: kube-system}]
  - namePrefix: clerk-token-
    manifest:
      apiVersion: v1
      kind: Secret
      type: kubernetes.io/service-account-token
      metadata:
        namespace: kube-system
        name: clerk-token-own
        annotations: {kubernetes.io/service-account.name: clerk}
`

func parse(t *testing.T, text string) *reserved.Reservation {
	t.Helper()
	reservation, err := reserved.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return reservation
}

func setOf(t *testing.T, text string) *reserved.Set {
	t.Helper()
	set, err := reserved.NewSet(parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// entryOf returns the first entry of a kind that has a manifest.
func entryOf(t *testing.T, text, kind string) *reserved.Resource {
	t.Helper()
	resources := setOf(t, text).Resources()
	i := slices.IndexFunc(resources, func(r *reserved.Resource) bool { return r.Kind == kind && r.HasManifest() })
	if i < 0 {
		t.Fatalf("the reservation has no %s", kind)
	}
	return resources[i]
}

// newFake returns an Authorizer over fake clients that hold the objects, typed and dynamic ones apart.
func newFake(t *testing.T, typed, dynamic []runtime.Object) (*Authorizer, *fake.Clientset, *dynamicfake.FakeDynamicClient) {
	t.Helper()
	client := fake.NewClientset(typed...)
	dynamicClient := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{certificateResource: "CertificateList"}, dynamic...)
	a, err := New(setOf(t, shop), Cluster{Client: client, Dynamic: dynamicClient, Config: &rest.Config{}})
	if err != nil {
		t.Fatal(err)
	}
	return a, client, dynamicClient
}

// allow makes a fake client answer each SelfSubjectAccessReview by f.
func allow(client *fake.Clientset, f func(authorizationv1.SelfSubjectAccessReviewSpec) bool) {
	client.PrependReactor("create", "selfsubjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		review.Status.Allowed = f(review.Spec)
		return true, review, nil
	})
}

func allowAll(authorizationv1.SelfSubjectAccessReviewSpec) bool { return true }

// clerk returns the live ServiceAccount, with the uid "uid-1".
func clerk() *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{}
	account.Namespace, account.Name, account.UID = metav1.NamespaceSystem, "clerk", "uid-1"
	return account
}

// tokenSecret returns the clerk's token Secret under a name, filled for the account with the uid "uid-1".
func tokenSecret(name string) *corev1.Secret {
	secret := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}
	secret.Namespace, secret.Name = metav1.NamespaceSystem, name
	secret.Annotations = map[string]string{
		corev1.ServiceAccountNameKey: "clerk",
		corev1.ServiceAccountUIDKey:  "uid-1",
	}
	secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(tokenFor(name))}
	return secret
}

// tokenFor returns a token of the clerk with the uid "uid-1", as the Secret of this name holds it. Its signature holds the word
// "canary", which nothing may print.
func tokenFor(name string) string {
	return tokenWith(policy.TokenClaims{Namespace: metav1.NamespaceSystem, Secret: name, Account: "clerk", AccountUID: "uid-1"})
}

func tokenWith(claims policy.TokenClaims) string {
	const prefix = "kubernetes.io/serviceaccount/"
	payload, err := json.Marshal(map[string]string{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + claims.Namespace + ":" + claims.Account,
		prefix + "namespace": claims.Namespace, prefix + "secret.name": claims.Secret,
		prefix + "service-account.name": claims.Account, prefix + "service-account.uid": claims.AccountUID,
	})
	if err != nil {
		panic(err) // they are texts
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + ".canary00"
}

// liveAs returns the entry's manifest as a live object, changed by f.
func liveAs(entry *reserved.Resource, f func(*unstructured.Unstructured)) *unstructured.Unstructured {
	live := entry.Object()
	live.SetUID("uid-of-it")
	live.SetResourceVersion("7")
	if f != nil {
		f(live)
	}
	return live
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package shop is a reserved set, its objects, and an API server, for the unit tests of what works on a cluster.
package shop

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
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Reservation is a reservation with one of each kind that this package treats in its own way.
const Reservation = `
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

// Parse reads a reservation.
func Parse(t *testing.T, text string) *reserved.Reservation {
	t.Helper()
	reservation, err := reserved.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return reservation
}

// Set returns a set of one reservation.
func Set(t *testing.T, text string) *reserved.Set {
	t.Helper()
	set, err := reserved.NewSet(Parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Resource returns the first entry of a kind that has a manifest.
func Resource(t *testing.T, text, kind string) *reserved.Resource {
	t.Helper()
	resources := Set(t, text).Resources()
	i := slices.IndexFunc(resources, func(r *reserved.Resource) bool { return r.Kind == kind && r.HasManifest() })
	if i < 0 {
		t.Fatalf("the reservation has no %s", kind)
	}
	return resources[i]
}

// Fakes returns fake clients that hold the objects, typed and dynamic ones apart. They serve the kinds of the reservation.
func Fakes(typed, dynamic []runtime.Object) (*fake.Clientset, *dynamicfake.FakeDynamicClient) {
	client := fake.NewClientset(typed...)
	client.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true},
			{Name: "secrets", Kind: "Secret", Namespaced: true},
			{Name: "configmaps", Kind: "ConfigMap", Namespaced: true},
			{Name: "namespaces", Kind: "Namespace"},
		}},
		{GroupVersion: "rbac.authorization.k8s.io/v1", APIResources: []metav1.APIResource{
			{Name: "clusterroles", Kind: "ClusterRole"},
			{Name: "clusterrolebindings", Kind: "ClusterRoleBinding"},
			{Name: "roles", Kind: "Role", Namespaced: true},
			{Name: "rolebindings", Kind: "RoleBinding", Namespaced: true},
		}},
	}
	return client, dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{
			{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}: "CertificateList",
			{Version: "v1", Resource: "secrets"}:                                "SecretList",
		}, dynamic...)
}

// Allow makes a fake client answer each SelfSubjectAccessReview by f.
func Allow(client *fake.Clientset, f func(authorizationv1.SelfSubjectAccessReviewSpec) bool) {
	client.PrependReactor("create", "selfsubjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, isCreate := action.(clienttesting.CreateAction)
		if !isCreate {
			return false, nil, nil
		}
		asked, isReview := create.GetObject().(*authorizationv1.SelfSubjectAccessReview)
		if !isReview {
			return false, nil, nil
		}
		review := asked.DeepCopy()
		review.Status.Allowed = f(review.Spec)
		return true, review, nil
	})
}

// AllowAll allows everything.
func AllowAll(authorizationv1.SelfSubjectAccessReviewSpec) bool { return true }

// Clerk returns the live ServiceAccount, with the uid "uid-1".
func Clerk() *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{}
	account.Namespace, account.Name, account.UID = metav1.NamespaceSystem, "clerk", "uid-1"
	return account
}

// TokenSecret returns the clerk's token Secret under a name, filled for the account with the uid "uid-1".
func TokenSecret(name string) *corev1.Secret {
	secret := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}
	secret.Namespace, secret.Name = metav1.NamespaceSystem, name
	secret.Annotations = map[string]string{
		corev1.ServiceAccountNameKey: "clerk",
		corev1.ServiceAccountUIDKey:  "uid-1",
	}
	secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(TokenFor(name))}
	return secret
}

// TokenFor returns a token of the clerk with the uid "uid-1", as the Secret of this name holds it. Its signature holds the word
// "canary", which nothing may print.
func TokenFor(name string) string {
	return TokenWith(policy.TokenClaims{Namespace: metav1.NamespaceSystem, Secret: name, Account: "clerk", AccountUID: "uid-1"})
}

// TokenWith returns a token with these claims. Its signature holds the word "canary".
func TokenWith(claims policy.TokenClaims) string {
	const prefix = "kubernetes.io/serviceaccount/"
	payload, _ := json.Marshal(map[string]string{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + claims.Namespace + ":" + claims.Account,
		prefix + "namespace": claims.Namespace, prefix + "secret.name": claims.Secret,
		prefix + "service-account.name": claims.Account, prefix + "service-account.uid": claims.AccountUID,
	})
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + ".canary00"
}

// LiveAs returns the entry's manifest as a live object, changed by f.
func LiveAs(entry *reserved.Resource, f func(*unstructured.Unstructured)) *unstructured.Unstructured {
	live := entry.Object()
	live.SetUID("uid-of-it")
	live.SetResourceVersion("7")
	if f != nil {
		f(live)
	}
	return live
}

// RootCA is what the cluster of a fake publishes. Equal bytes are the same CA, whatever they hold.
const RootCA = "the CA of the cluster"

// Published is the ConfigMap with the CA of the cluster.
func Published() *corev1.ConfigMap {
	published := &corev1.ConfigMap{Data: map[string]string{"ca.crt": RootCA}}
	published.Namespace, published.Name = metav1.NamespaceSystem, "kube-root-ca.crt"
	return published
}

// Filled returns the clerk's own Secret as kube-controller-manager fills it, changed by one key.
func Filled(key, value string) *corev1.Secret {
	secret := TokenSecret("clerk-token-own")
	secret.Data["ca.crt"], secret.Data["namespace"] = []byte(RootCA), []byte(metav1.NamespaceSystem)
	if key != "" {
		secret.Data[key] = []byte(value)
	}
	return secret
}

// Certificate is one as cert-manager's API server returns it.
func Certificate(conditions ...any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
		"metadata": map[string]any{"namespace": "guard", "name": "serving", "labels": map[string]any{"app.kubernetes.io/name": "apigw-guardian"}},
		"status":   map[string]any{"conditions": conditions},
	}}
}

// Condition is one of a Certificate.
func Condition(kind, status, reason, message string) any {
	return map[string]any{"type": kind, "status": status, "reason": reason, "message": message}
}

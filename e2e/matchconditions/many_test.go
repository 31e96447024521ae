// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// many returns the built-in reservation and n further ones, in three namespaces. One name has a quote, a comma and a bracket.
func many(tb testing.TB, n int) *reserved.Set {
	tb.Helper()
	files := map[string]string{}
	for i := range n {
		namespace := []string{"kube-system", "edge", "edge-1"}[i%3]
		files[fmt.Sprintf("%03d.yaml", i)] = fmt.Sprintf(`
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: edge-%[1]d}
spec:
  owner: Edge %[1]d
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: %[2]s, name: account-%[1]d}}
  - manifest: {apiVersion: v1, kind: ConfigMap, metadata: {namespace: %[2]s, name: settings-%[1]d}}
  - manifest: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: "it's: [a', 'b] %[1]d"}}
  - {namePrefix: "\u00e9\u4e16 %[1]d-", manifest: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: "\u00e9\u4e16 %[1]d-"}}}
  - manifest:
      apiVersion: v1
      kind: Secret
      type: kubernetes.io/service-account-token
      metadata: {namespace: %[2]s, name: token-%[1]d-x, annotations: {kubernetes.io/service-account.name: account-%[1]d}}
    namePrefix: token-%[1]d-
`, i, namespace)
	}
	set, err := reserved.LoadFiles("test", files)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// neighbours returns identities that the resource covers, and such that differ by a character, a namespace or an account.
func neighbours(resource *reserved.Resource) []reserved.Identity {
	var all []reserved.Identity
	for _, name := range []string{
		resource.Name, resource.Name + "0", strings.TrimSuffix(resource.Name, "x"), resource.NamePrefix, resource.NamePrefix + "y", "other",
		resource.Namespace + resource.Name, "edge-1",
	} {
		if name == "" { // no object has that name
			continue
		}
		for _, namespace := range []string{resource.Namespace, "edge", "edge-1", "default"} {
			if resource.Namespace == "" {
				namespace = ""
			}
			for _, account := range []string{"", resource.Account, resource.Account + "0", "other"} {
				all = append(all, reserved.Identity{Namespace: namespace, Name: name, Account: account})
			}
		}
	}
	return all
}

func requestOf(tb testing.TB, resource *reserved.Resource, operation admissionv1.Operation, id reserved.Identity) *admissionv1.AdmissionRequest {
	tb.Helper()
	metadata := map[string]any{"name": id.Name}
	if id.Namespace != "" {
		metadata["namespace"] = id.Namespace
	}
	if id.Account != "" {
		metadata["annotations"] = map[string]any{corev1.ServiceAccountNameKey: id.Account}
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": resource.GVR.GroupVersion().String(), "kind": resource.Kind, "metadata": metadata,
	})
	if err != nil {
		tb.Fatal(err)
	}
	request := &admissionv1.AdmissionRequest{
		Operation: operation, Kind: metav1.GroupVersionKind(resource.GVK()), Resource: metav1.GroupVersionResource(resource.GVR),
		Namespace: id.Namespace, Name: id.Name, UserInfo: authenticationv1.UserInfo{Username: "admin"},
	}
	if operation != admissionv1.Create {
		request.OldObject = runtime.RawExtension{Raw: data}
	}
	if operation != admissionv1.Delete {
		request.Object = runtime.RawExtension{Raw: data}
	}
	return request
}

// With many reservations, the webhooks of a kind match exactly the objects that the set reserves.
func TestConditionsAgreeWithTheSetOfManyReservations(t *testing.T) {
	set := many(t, 60)
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			matchers := map[string]matchconditions.Matcher{}
			matched := 0
			for _, resource := range set.Resources() {
				kind := resource.GVR.Resource
				if matchers[kind] == nil {
					webhooks := webhooksOf(set, kind)
					if len(webhooks) != 1 {
						t.Fatalf("%d webhooks for %s, want 1", len(webhooks), kind)
					}
					matchers[kind] = server.matcher(t, webhooks[0])
				}
				for i, id := range neighbours(resource) {
					operation := reserved.Operations()[i%3]
					if resource.Guard == reserved.GuardExistence {
						operation = admissionv1.Delete
					}
					want := set.FindGuarded(operation, resource.GVR, id) != nil
					if got := matches(t, matchers[kind], server.attributes(t, requestOf(t, resource, operation, id))); got != want {
						t.Errorf("%s %s %+v: matches: got %t, want %t", operation, kind, id, got, want)
					}
					if want {
						matched++
					}
				}
			}
			if matched < len(set.Resources()) {
				t.Errorf("%d matches of %d resources", matched, len(set.Resources()))
			}
		})
	}
}

// The most expensive full webhook, and the one with the most names, stay within the API server's limits.
func TestAFullWebhookStaysWithinTheCost(t *testing.T) {
	for name, entry := range map[string]string{
		"prefixes": `- {namePrefix: %[1]s, manifest: {apiVersion: v1, kind: Secret, metadata: {namespace: ns, name: %[1]s}}}`,
		"names":    `- {manifest: {apiVersion: v1, kind: Secret, metadata: {namespace: ns, name: %[1]s}}}`,
		"accounts": `- {manifest: {apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, ` +
			`metadata: {namespace: ns, name: %[1]s, annotations: {kubernetes.io/service-account.name: %[1]s}}}}`,
		"prefixes of 60 lengths": `- {namePrefix: %[1]s%[2]s, manifest: {apiVersion: v1, kind: Secret, metadata: {namespace: ns, name: %[1]s%[2]s}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			reservation := "apiVersion: guardian.apigw.io/v1alpha1\nkind: Reservation\nmetadata: {name: x}\nspec:\n  owner: x\n  resources:\n"
			for i := range 5000 {
				reservation += "  " + fmt.Sprintf(entry, fmt.Sprintf("a%04x", i), strings.Repeat("x", i%60)) + "\n"
			}
			set, err := reserved.LoadFiles("test", map[string]string{"x.yaml": reservation})
			if err != nil {
				t.Fatal(err)
			}
			webhooks := webhooksOf(set, "secrets")
			if len(webhooks) < 2 {
				t.Fatalf("%d webhooks, want more than one", len(webhooks))
			}
			last := set.Reservations()[1].Resources[0]
			id := reserved.Identity{Namespace: "ns", Name: strings.Repeat("a", 253), Account: strings.Repeat("a", 253)}
			for name, server := range servers {
				attributes := server.attributes(t, requestOf(t, last, admissionv1.Update, id))
				if matches(t, server.matcher(t, webhooks[0]), attributes) {
					t.Errorf("%s: matches", name)
				}
			}
		})
	}
}

// BenchmarkUnrelatedWrite measures what the conditions cost a write to an object that is not reserved.
func BenchmarkUnrelatedWrite(b *testing.B) {
	for _, n := range []int{0, 50, 500} {
		set := many(b, n)
		for _, resource := range set.Reservations()[0].Resources {
			for _, namespace := range []string{resource.Namespace, "default"} {
				if namespace != resource.Namespace && resource.Namespace == "" {
					continue
				}
				b.Run(fmt.Sprintf("%s in %q, %d more reservations", resource.GVR.Resource, namespace, n), func(b *testing.B) {
					server := servers["1.37"]
					id := reserved.Identity{Namespace: namespace, Name: "a-secret-of-some-other-program"}
					attributes := server.attributes(b, requestOf(b, resource, admissionv1.Update, id))
					var matchers []matchconditions.Matcher
					for _, webhook := range webhooksOf(set, resource.GVR.Resource) {
						matchers = append(matchers, server.matcher(b, webhook))
					}
					for b.Loop() {
						for _, matcher := range matchers {
							if matches(b, matcher, attributes) {
								b.Fatal("matches")
							}
						}
					}
				})
			}
		}
	}
}

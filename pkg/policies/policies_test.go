// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const shop = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: shop}
spec:
  owner: Shop
  exemptions:
  - {user: "o'neil", operations: [UPDATE], reason: console}
  - {group: vendors, operations: [DELETE], reason: console}
  - {user: late, operations: [UPDATE], reason: console, until: "2030-01-01T00:00:00Z"}
  resources:
  - manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}, data: {key: %q}}
  - manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: shop}}
`

func setOf(t *testing.T, value string) *reserved.Set {
	t.Helper()
	set, err := reserved.LoadFiles("test", map[string]string{"shop.yaml": fmt.Sprintf(shop, value)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestEachResourceHasAPolicyAndABinding(t *testing.T) {
	t.Parallel()
	for suffix, static := range map[string]bool{"": false, ".static.k8s.io": true} {
		compiled, err := policies.Compile(setOf(t, "value"), policies.Options{Writers: policy.DefaultWriters(), Static: static})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range compiled {
			names = append(names, strings.TrimSuffix(p.Policy.Name, suffix))
			if p.Binding.Spec.PolicyName != p.Policy.Name || !strings.HasSuffix(p.Binding.Name, suffix) {
				t.Errorf("binding %q of policy %q for %q", p.Binding.Name, p.Binding.Spec.PolicyName, p.Policy.Name)
			}
			if diff := cmp.Diff([]admissionregistrationv1.ValidationAction{"Deny"}, p.Binding.Spec.ValidationActions); diff != "" {
				t.Errorf("%s: actions (-want +got)\n%s", p.Binding.Name, diff)
			}
		}
		want := []string{
			"apigw-guardian-serviceaccounts", "apigw-guardian-clusterroles", "apigw-guardian-clusterrolebindings", "apigw-guardian-secrets",
			"apigw-guardian-shop-configmaps", "apigw-guardian-shop-configmaps-2", "apigw-guardian-shop-namespaces-deletion",
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("names (-want +got)\n%s", diff)
		}
	}
}

func TestAnExemptionWithAnEndCoversNothing(t *testing.T) {
	t.Parallel()
	compiled, err := policies.Compile(setOf(t, "value"), policies.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `request.operation in ['UPDATE'] && request.userInfo.username == 'o\'neil' || ` +
		`request.operation in ['DELETE'] && has(request.userInfo.groups) && 'vendors' in request.userInfo.groups`
	for _, p := range compiled[4:] {
		if got := p.Policy.Spec.Variables[0]; got.Name != policies.VariableExempt || got.Expression != want {
			t.Errorf("%s: got %s: %s", p.Policy.Name, got.Name, got.Expression)
		}
	}
}

func TestAPolicyThatObservesWarns(t *testing.T) {
	t.Parallel()
	compiled, err := policies.Compile(setOf(t, "value"), policies.Options{Mode: policy.Observe, Backstop: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range compiled {
		if diff := cmp.Diff([]admissionregistrationv1.ValidationAction{"Warn", "Audit"}, p.Binding.Spec.ValidationActions); diff != "" {
			t.Errorf("%s: actions (-want +got)\n%s", p.Binding.Name, diff)
		}
		if *p.Policy.Spec.FailurePolicy != admissionregistrationv1.Ignore || p.Policy.Spec.ParamKind == nil || p.Binding.Spec.ParamRef == nil {
			t.Errorf("%s: %+v", p.Policy.Name, p.Policy.Spec.FailurePolicy)
		}
	}
}

func TestAManifestOfTheAPIServersLimitIsRefused(t *testing.T) {
	t.Parallel()
	_, err := policies.Compile(setOf(t, strings.Repeat("x", 100_000)), policies.Options{})
	if !errors.Is(err, policies.ErrTooLarge) || !strings.Contains(err.Error(), "configmaps/shop/a") {
		t.Errorf("got %v", err)
	}
}

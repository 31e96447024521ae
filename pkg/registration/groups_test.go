// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// many returns the built-in reservation and n further ones, each with the kinds of the built-in one and a Namespace. Their names end in
// suffix.
func many(t *testing.T, n int, suffix string) *reserved.Set {
	t.Helper()
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("%04d.yaml", i)] = fmt.Sprintf(`
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: tenant-%[1]d}
spec:
  owner: Tenant %[1]d
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: tenant-%[1]d, name: tenant-%[1]d-ingress%[2]s}}
  - manifest: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: tenant-%[1]d-ingress-clusterrole%[2]s}}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: ClusterRoleBinding
      metadata: {name: tenant-%[1]d-ingress-clusterrole-binding%[2]s}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenant-%[1]d-ingress-clusterrole%[2]s}
  - namePrefix: tenant-%[1]d-ingress-token-
    manifest:
      apiVersion: v1
      kind: Secret
      type: kubernetes.io/service-account-token
      metadata:
        namespace: tenant-%[1]d
        name: tenant-%[1]d-ingress-token-guardian
        annotations: {kubernetes.io/service-account.name: tenant-%[1]d-ingress%[2]s}
`, i, suffix)
	}
	set, err := reserved.LoadFiles("test", files)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestFiftyReservationsShareTheWebhooks(t *testing.T) {
	t.Parallel()
	bundle := []byte(strings.Repeat("x", 2400)) // two CAs
	configuration := Build(many(t, 50, ""), Options{CABundle: bundle, FailurePolicy: admissionregistrationv1.Fail})
	var names []string
	for _, webhook := range configuration.Webhooks {
		names = append(names, webhook.Name)
	}
	want := []string{
		"serviceaccounts.apigw-guardian.io", "clusterroles.apigw-guardian.io", "clusterrolebindings.apigw-guardian.io",
		"secrets.apigw-guardian.io", "namespaces.deletion.apigw-guardian.io", "unlocks.apigw-guardian.io",
		"auditrecords.apigw-guardian.io",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got webhooks %q, want %q", names, want)
	}
	data, err := json.Marshal(configuration)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 64<<10 {
		t.Errorf("%d bytes, want at most %d", len(data), 64<<10)
	}
}

func TestAFullWebhookIsSplit(t *testing.T) {
	t.Parallel()
	set := many(t, 500, strings.Repeat("x", 200))
	covered := 0
	seen := map[string]bool{}
	for _, group := range groups(set) {
		if seen[group.name] {
			t.Errorf("two webhooks are named %s", group.name)
		}
		seen[group.name] = true
		covered += len(group.resources)
		for _, condition := range policies.MatchConditions(group.resources) {
			if len(condition.Expression) > maxKeys+1000 {
				t.Errorf("%s: an expression of %d bytes", group.name, len(condition.Expression))
			}
		}
	}
	if covered != len(set.Resources()) {
		t.Errorf("the webhooks have %d resources, want %d", covered, len(set.Resources()))
	}
	for _, name := range []string{"clusterroles.apigw-guardian.io", "clusterroles.2.apigw-guardian.io"} {
		if !seen[name] {
			t.Errorf("no webhook %s: %v", name, seen)
		}
	}
}

func TestATooLargeSetIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		n      int
		suffix int
		want   error
	}{
		"500 reservations":          {500, 0, nil},
		"1500 reservations":         {1500, 0, nil},
		"1500 of the longest names": {1500, 200, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := Check(many(t, test.n, strings.Repeat("x", test.suffix))); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// A kind of another group has a name of its own, and the built-in names stay.
func TestNamesakesHaveOtherNames(t *testing.T) {
	t.Parallel()
	set, err := reserved.LoadFiles("test", map[string]string{"a.yaml": `{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation",
		"metadata":{"name":"a"},"spec":{"owner":"a","resources":[
		{"manifest":{"apiVersion":"example.org/v1","kind":"ClusterRole","metadata":{"name":"a"}}},
		{"manifest":{"apiVersion":"example.org/v1","kind":"Unlock","metadata":{"name":"a"}}}]}}`})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, webhook := range Build(set, Options{}).Webhooks {
		names = append(names, webhook.Name)
	}
	want := []string{
		"serviceaccounts.apigw-guardian.io", "clusterroles.apigw-guardian.io", "clusterrolebindings.apigw-guardian.io",
		"secrets.apigw-guardian.io", "clusterroles.v1.example.org.apigw-guardian.io", "unlocks.2.apigw-guardian.io",
		"unlocks.apigw-guardian.io", "auditrecords.apigw-guardian.io",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

// While an upgrade adds a reservation, old replicas leave the new webhook configuration. They repair one that reserves less.
func TestThePatrolLeavesMoreReservations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		live, want *reserved.Set
		repaired   bool
	}{
		"one more":  {many(t, 3, ""), many(t, 2, ""), false},
		"one less":  {many(t, 2, ""), many(t, 3, ""), true},
		"the first": {many(t, 1, ""), many(t, 0, ""), false},
		"others":    {many(t, 3, "-x"), many(t, 3, ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, begin := patrolling(t, Patrol{})
				r.want = r.rebuilt(test.want)
				live := r.rebuilt(test.live)
				r.api.live = live.DeepCopy()
				begin()
				time.Sleep(time.Hour)
				defer r.pausePatrol()()
				if got := r.api.live.Annotations["guardian.apigw.io/revision"] == r.want.Annotations["guardian.apigw.io/revision"]; got != test.repaired {
					t.Errorf("repaired: got %t, want %t", got, test.repaired)
				}
			})
		})
	}
}

// rebuilt returns what the replica wants for another set.
func (r *replica) rebuilt(set *reserved.Set) *configuration {
	want := r.want.DeepCopy()
	built := Build(set, Options{FailurePolicy: admissionregistrationv1.Fail})
	for i := range built.Webhooks {
		built.Webhooks[i].ClientConfig = want.Webhooks[0].ClientConfig
	}
	want.Webhooks = built.Webhooks
	seal(want)
	return want
}

func TestHoldsForMore(t *testing.T) {
	t.Parallel()
	const want = `request.namespace in ['a'] && [object, oldObject].exists(o, o.metadata.name in ['a/x', 'a/it\'s'] || [3, 5].exists(n, n))`
	for name, test := range map[string]struct {
		edit []string
		want bool
	}{
		"the same":              {nil, true},
		"a namespace more":      {[]string{`['a']`, `['a', 'b']`}, true},
		"a name first":          {[]string{`['a/x'`, `['b/y', 'a/x'`}, true},
		"a length more":         {[]string{`[3, 5]`, `[3, 4, 5]`}, true},
		"no names":              {[]string{`['a/x', 'a/it\'s']`, `[]`}, false},
		"a name less":           {[]string{`'a/x', `, ``}, false},
		"another name":          {[]string{`'a/x'`, `'a/y'`}, false},
		"two names in one":      {[]string{`'a/x', 'a/it\'s'`, `'a/x\', \'a/it\'s'`}, false},
		"another operator":      {[]string{`||`, `&&`}, false},
		"the names negated":     {[]string{`['a/x', 'a/it\'s']`, `['a/x', 'a/it\'s'] && false`}, false},
		"a list of expressions": {[]string{`['a/x',`, `['a/x' + 'y', 'a/x',`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := holdsForMore(strings.NewReplacer(test.edit...).Replace(want), want); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

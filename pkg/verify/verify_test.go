// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func serve(t *testing.T, set *reserved.Set) (*shop.APIServer, live.Cluster) {
	t.Helper()
	server, config := shop.Serve(t, set)
	cluster, err := live.Connect(config, set, "")
	if err != nil {
		t.Fatal(err)
	}
	return server, cluster
}

func TestVerifyTriesEveryWriteAsADryRun(t *testing.T) {
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	rows, err := New(cluster, EveryWrite).Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, row := range rows {
		counts[row.Write]++
		isUnrelated := strings.Contains(row.Write, " an unrelated ")
		if !isUnrelated && (!row.OK || row.Got != denied) {
			t.Errorf("got %+v", row)
		}
	}
	want := map[string]int{
		"create": 4, "put": 4, "json patch": 4, "merge patch": 4, "strategic merge patch": 4, "server-side apply": 4,
		"delete (background)": 4, "delete (foreground)": 4, "delete (orphan)": 4, "deletecollection": 4,
		"create under the prefix": 1, "create by generateName under the prefix": 1, "mint a token under another name": 1,
		"create an unrelated Secret": 1, "create an unrelated ConfigMap": 1, "create an unrelated ClusterRole": 1,
		"apply an unrelated ClusterRole": 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(server.Writes) != len(rows) {
		t.Errorf("%d rows and %d writes", len(rows), len(server.Writes))
	}
}

// Without the selector, the dry-run would ask every webhook of the cluster about every object of the kind.
func TestADeletionOfACollectionSelectsOneName(t *testing.T) {
	set := shop.Set(t, shop.Reservation)
	server, config := shop.Serve(t, set)
	var mu sync.Mutex
	var selected []string
	config.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		if selector := r.URL.Query().Get("fieldSelector"); r.Method == http.MethodDelete && selector != "" {
			mu.Lock()
			selected = append(selected, selector)
			mu.Unlock()
		}
		return server.RoundTrip(r)
	})
	cluster, err := live.Connect(config, set, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cluster, EveryWrite).Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"metadata.name=clerk", "metadata.name=clerk-sells", "metadata.name=clerk-token-own", "metadata.name=selling"}
	slices.Sort(selected)
	if diff := cmp.Diff(want, selected); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A row that is left out tells nothing, and must not look like a success.
func TestARowThatIsLeftOutIsNotOK(t *testing.T) {
	refused := statusError(http.StatusForbidden, `secrets "x" is forbidden: User "eve" cannot delete resource "secrets"`)
	for scope, want := range map[Scope]Attack{
		EveryWrite:      {Want: denied, Got: "failed"},
		PermittedWrites: {Want: denied, Got: leftOut, LeftOut: true},
	} {
		if diff := cmp.Diff(want, New(live.Cluster{}, scope).row(Attack{Want: denied, Got: "failed"}, refused)); diff != "" {
			t.Errorf("scope %d: (-want +got)\n%s", scope, diff)
		}
	}
}

// mayOnly is RBAC that lets a caller do what is listed by method and path, and read what has a version.
func mayOnly(permitted ...string) func(method, path string) bool {
	return func(method, path string) bool {
		return path != "/version" && !slices.Contains(permitted, method+" "+path)
	}
}

func TestVerifyPermittedWrites(t *testing.T) {
	const (
		account = "/api/v1/namespaces/kube-system/serviceaccounts/clerk"
		role    = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selling"
		binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/clerk-sells"
		secret  = "/api/v1/namespaces/kube-system/secrets/clerk-token-own"
		other   = "/apis/rbac.authorization.k8s.io/v1/clusterroles/" + unrelatedRole
	)
	enough := []string{
		"GET " + account, "PATCH " + account, "DELETE " + account, "GET " + role, "PUT " + role, "GET " + binding, "DELETE " + binding,
		"DELETE " + secret, "PATCH " + other,
	}
	passOther := func(path string) (int, string) {
		if path == other {
			return http.StatusOK, ""
		}
		return shop.Deny(path)
	}
	tests := map[string]struct {
		permitted []string
		answer    func(string) (int, string)
		scope     Scope
		want      map[string]int // rows by what came of them
		wrong     []string
	}{
		"each resource was denied once": {
			permitted: enough, answer: passOther, scope: PermittedWrites,
			want: map[string]int{"denied": 14, "allowed": 1, "left out": 33},
		},
		"a resource of which nothing may be tried": {
			permitted: slices.DeleteFunc(slices.Clone(enough), func(s string) bool { return s == "DELETE "+secret }),
			answer:    passOther, scope: PermittedWrites,
			want:  map[string]int{"denied": 11, "allowed": 1, "left out": 36, "failed": 1},
			wrong: []string{"secrets/kube-system/clerk-token-*, any of these"},
		},
		"a guard that does not deny": {
			permitted: []string{"DELETE " + secret, "PATCH " + other},
			answer:    func(string) (int, string) { return http.StatusOK, "" }, scope: PermittedWrites,
			want: map[string]int{"allowed": 4, "left out": 44, "failed": 3},
			wrong: []string{
				"clusterrolebindings.rbac.authorization.k8s.io/clerk-sells, any of these",
				"clusterroles.rbac.authorization.k8s.io/selling, any of these",
				"secrets/kube-system/clerk-token-*, delete (background)", "secrets/kube-system/clerk-token-*, delete (foreground)",
				"secrets/kube-system/clerk-token-*, delete (orphan)", "serviceaccounts/kube-system/clerk, any of these",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, cluster := serve(t, shop.Set(t, shop.Reservation))
			server.Answer, server.Refuses = test.answer, mayOnly(test.permitted...)
			rows, err := New(cluster, test.scope).Verify(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, wrong := map[string]int{}, []string(nil)
			for _, row := range rows {
				what, _, _ := strings.Cut(row.Got, ":")
				got[what]++
				if row.LeftOut != (row.Got == leftOut) {
					t.Errorf("got %+v", row)
				}
				if !row.OK && !row.LeftOut {
					wrong = append(wrong, row.Resource+", "+row.Write)
				}
			}
			slices.Sort(wrong)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.wrong, wrong); diff != "" {
				t.Errorf("wrong: -want +got:\n%s", diff)
			}
		})
	}
}

// Without the scope that asks for it, nothing is left out: a refusal by RBAC is no denial.
func TestVerifyEveryWriteTakesARefusalForAFailure(t *testing.T) {
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	server.Refuses = func(method, _ string) bool { return method == http.MethodDelete }
	rows, err := New(cluster, EveryWrite).Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		isDelete := strings.HasPrefix(row.Write, "delete")
		if row.LeftOut || isDelete && !strings.HasPrefix(row.Got, "failed: refused, but not by the guard") {
			t.Errorf("got %+v", row)
		}
	}
}

// An impostor that denies all dry-runs fails every write that can carry a nonce, also where RBAC leaves most writes out.
func TestVerifyWantsAProof(t *testing.T) {
	const account = "/api/v1/namespaces/kube-system/serviceaccounts/clerk"
	tests := map[string]struct {
		scope   Scope
		refuses func(method, path string) bool
		change  func(*shop.APIServer)
		wrong   int
	}{
		"every write": {scope: EveryWrite, change: func(s *shop.APIServer) { s.Replica = nil }, wrong: 4*6 + 1},
		"every write, of a guard of an earlier version": {
			scope: EveryWrite, wrong: 4*6 + 1,
			change: func(s *shop.APIServer) {
				s.Replica, s.Objects[shop.WebhookConfigurationPath] = nil, `{"metadata":{"name":"x"}}`
			},
		},
		"every write, and the keys may not be read": {
			scope: EveryWrite, wrong: 4*6 + 1, change: func(*shop.APIServer) {},
			refuses: func(_, path string) bool { return path == shop.WebhookConfigurationPath },
		},
		"permitted writes": {scope: PermittedWrites, change: func(s *shop.APIServer) { s.Replica = nil }, wrong: 4*6 + 1},
		"permitted writes, and the keys may not be read": {
			scope: PermittedWrites, change: func(s *shop.APIServer) { s.Replica = nil },
			refuses: func(_, path string) bool { return path == shop.WebhookConfigurationPath },
		},
		"permitted writes of which one carries a nonce": {
			scope: PermittedWrites, change: func(s *shop.APIServer) { s.Replica = nil }, wrong: 4 + 3,
			refuses: mayOnly("GET "+shop.WebhookConfigurationPath, "GET "+account, "PATCH "+account),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, cluster := serve(t, shop.Set(t, shop.Reservation))
			server.Refuses = test.refuses
			test.change(server)
			rows, err := New(cluster, test.scope).Verify(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			wrong := 0
			for _, row := range rows {
				if !row.OK && !row.LeftOut && !strings.Contains(row.Write, " an unrelated ") {
					wrong++
				}
			}
			if wrong != test.wrong {
				t.Errorf("%d rows are wrong, want %d: %+v", wrong, test.wrong, rows)
			}
		})
	}
}

func TestVerifyWithoutResources(t *testing.T) {
	const vault = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: vault}
spec:
  owner: Vault
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: vault, name: keeper}}
`
	server, cluster := serve(t, shop.Set(t, vault))
	maps.DeleteFunc(server.Objects, func(path, _ string) bool { return path != "/version" && path != shop.WebhookConfigurationPath })
	rows, err := New(cluster, EveryWrite).Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, fmt.Sprintf("%s, %s: %s", row.Resource, row.Write, row.Got))
	}
	want := []string{
		"serviceaccounts/vault/keeper, look for it: absent",
		"serviceaccounts/vault/keeper, create: denied",
		"secrets/vault/*, mint a token under another name: denied",
		"namespaces/vault, look for it: absent",
		"secrets/vault/guard-check-*, create an unrelated Secret: denied",
		"configmaps/vault/guard-check-*, create an unrelated ConfigMap: allowed",
		"clusterroles.rbac.authorization.k8s.io/guard-check-*, create an unrelated ClusterRole: denied",
		"clusterroles.rbac.authorization.k8s.io/apigw-guardian-unrelated, apply an unrelated ClusterRole: denied",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestVerifyRepointsAnotherAccountsSecret(t *testing.T) {
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	const metadata = `"metadata":{"namespace":"kube-system","name":%q,"annotations":{"kubernetes.io/service-account.name":%q,"kubernetes.io/service-account.uid":"u"}}`
	item := func(name, account string) string {
		return `{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","data":{"token":"Y2FuYXJ5"},` + fmt.Sprintf(metadata, name, account) + `}`
	}
	server.Objects["/api/v1/namespaces/kube-system/secrets"] = `{"kind":"SecretList","apiVersion":"v1","items":[` +
		item("clerk-token-own", "clerk") + "," + item("another", "clerk") + "," + item("eves", "eve") + `]}`
	if _, err := New(cluster, EveryWrite).Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	i := slices.Index(server.Writes, "PUT /api/v1/namespaces/kube-system/secrets/eves")
	if i < 0 {
		t.Fatalf("there was no such write in %q", server.Writes)
	}
	var secret map[string]any
	if err := json.Unmarshal([]byte(server.Bodies[i]), &secret); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
		"metadata": map[string]any{
			"namespace": "kube-system", "name": "eves",
			"annotations": map[string]any{"kubernetes.io/service-account.name": "clerk"},
		},
	}
	if diff := cmp.Diff(want, secret); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

func TestApplyPermissions(t *testing.T) {
	var got []string
	for _, p := range applyPermissions(shop.Set(t, shop.Reservation)) {
		got = append(got, p.String())
	}
	want := []string{
		"get serviceaccounts/clerk -n kube-system",
		"create serviceaccounts/clerk -n kube-system",
		"patch serviceaccounts/clerk -n kube-system",
		"get clusterroles.rbac.authorization.k8s.io/selling",
		"create clusterroles.rbac.authorization.k8s.io/selling",
		"patch clusterroles.rbac.authorization.k8s.io/selling",
		"escalate clusterroles.rbac.authorization.k8s.io/selling",
		"get clusterrolebindings.rbac.authorization.k8s.io/clerk-sells",
		"create clusterrolebindings.rbac.authorization.k8s.io/clerk-sells",
		"patch clusterrolebindings.rbac.authorization.k8s.io/clerk-sells",
		"bind clusterroles.rbac.authorization.k8s.io/selling",
		"get secrets/clerk-token-own -n kube-system",
		"create secrets/clerk-token-own -n kube-system",
		"patch secrets/clerk-token-own -n kube-system",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAdminRole(t *testing.T) {
	deny := func(verb, resource string) func(authorizationv1.SelfSubjectAccessReviewSpec) bool {
		return func(spec authorizationv1.SelfSubjectAccessReviewSpec) bool {
			return spec.ResourceAttributes.Verb != verb || spec.ResourceAttributes.Resource != resource
		}
	}
	tests := map[string]struct {
		allowed func(authorizationv1.SelfSubjectAccessReviewSpec) bool
		want    Status
		names   string
	}{
		"who may all passes": {shop.AllowAll, Pass, ""},
		"who may not escalate fails": {
			deny("escalate", "clusterroles"), Fail, "escalate clusterroles.rbac.authorization.k8s.io/selling",
		},
		"who may not bind fails": {deny("bind", "clusterroles"), Fail, "bind clusterroles.rbac.authorization.k8s.io/selling"},
		"who may not create the token Secret fails": {
			deny("create", "secrets"), Fail, "create secrets/clerk-token-own -n kube-system",
		},
		"who may not list Secrets passes, and is told": {deny("list", "secrets"), Pass, "list secrets -n kube-system"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, client, _ := newFake(t, nil, nil)
			shop.Allow(client, test.allowed)
			check := a.checkAdminRole(t.Context())
			if check.Status != test.want || !strings.Contains(check.Message, test.names) {
				t.Errorf("got %+v, want %s with %q", check, test.want, test.names)
			}
			if (check.Remedy != "") != (test.want == Fail) {
				t.Errorf("got the remedy %q", check.Remedy)
			}
		})
	}
}

func TestAdminRoleIsUnknownWhenNobodyTells(t *testing.T) {
	a, client, _ := newFake(t, nil, nil)
	client.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no route")
	})
	if check := a.checkAdminRole(t.Context()); check.Status != Unknown {
		t.Errorf("got %+v", check)
	}
}

func TestGrants(t *testing.T) {
	const robot = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: robots}
spec:
  owner: Robots
  resources:
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: Role
      metadata: {namespace: elsewhere, name: walking}
      rules: [{apiGroups: [""], resources: [secrets], verbs: ["*"]}]
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: Role
      metadata: {namespace: yard, name: walking}
      rules:
      - {apiGroups: ["", extra], resources: [things], verbs: [get, get]}
      - {nonResourceURLs: [/metrics], verbs: [get]}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: RoleBinding
      metadata: {namespace: yard, name: robot-walks}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: walking}
      subjects: [{kind: User, name: robot}, {kind: ServiceAccount, name: robot, namespace: yard}]
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: RoleBinding
      metadata: {namespace: yard, name: robot-views}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
      subjects: [{kind: ServiceAccount, name: robot, namespace: yard}]
  - manifest:
      apiVersion: v1
      kind: Secret
      type: kubernetes.io/service-account-token
      metadata: {namespace: yard, name: robot-token, annotations: {kubernetes.io/service-account.name: robot}}
`
	tests := map[string]struct {
		reservation string
		want        []string
	}{
		"a ClusterRole gives each permission of each rule": {shop.Reservation, []string{
			"get pods", "get pods --subresource=log", "* deployments.apps/till", "get /healthz",
		}},
		"a Role gives its permissions in its namespace, once, and no paths; a role that is not reserved gives none": {robot, []string{
			"get things -n yard", "get things.extra -n yard",
		}},
		"a binding of another account gives nothing": {strings.ReplaceAll(robot, "name: robot, namespace: yard", "name: rob, namespace: yard"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range grants(shop.Parse(t, test.reservation), shop.Resource(t, test.reservation, "Secret")) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

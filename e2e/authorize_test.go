// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// emptyWorld returns the cluster without the reserved resources, as before the first installation.
func emptyWorld(t *testing.T) *scenario.World {
	t.Helper()
	world := harness.World(t)
	for _, object := range []*scenario.Object{world.Token, world.Binding, world.Role, world.Account} {
		pastGuard(t, world, scenario.Delete(object))
	}
	return world
}

// lines wants an outcome for each of the four, in the order in which they are applied, and the words of success.
func lines(t *testing.T, r harness.Ran, outcomes ...string) {
	t.Helper()
	got := strings.Split(strings.TrimSpace(r.Require(t, 0).Stdout), "\n")
	if len(got) != len(outcomes)+1 || got[len(got)-1] != "Authorized API Gateway" {
		t.Fatalf("got %q, want %v and Authorized API Gateway", got, outcomes)
	}
	for i, outcome := range outcomes {
		if !strings.Contains(got[i], " "+outcome) {
			t.Errorf("line %d: got %q, want %s", i, got[i], outcome)
		}
	}
}

func TestAuthorizeIsIdempotentBehindTheGuard(t *testing.T) {
	harness.Take(t)
	world := emptyWorld(t)
	harness.StartGuard(t)
	requireStatus(t, 3, false, true)
	lines(t, harness.Run(t, "authorize"), "created", "created", "created", "created")
	versions := resourceVersions(t, world)
	lines(t, harness.Run(t, "authorize"), "unchanged", "unchanged", "unchanged", "unchanged")
	if again := resourceVersions(t, world); again != versions {
		t.Errorf("the second run has written: %s, before %s", again, versions)
	}
	requireStatus(t, 0, true, true)
	var status struct {
		Drift          []any
		PrivateNetwork string
	}
	harness.Run(t, "status", "-o", "json").Require(t, 0).Into(t, &status)
	if len(status.Drift) != 0 || status.PrivateNetwork != "Unknown" {
		t.Errorf("got %+v", status)
	}
	harness.Run(t, "verify").Require(t, 0)
	if again := resourceVersions(t, world); again != versions {
		t.Errorf("status or verify has written: %s, before %s", again, versions)
	}
}

// requireStatus wants an exit code of status, and what it says in JSON.
func requireStatus(t *testing.T, code int, authorized, protected bool) {
	t.Helper()
	type state struct{ Authorized, Protected bool }
	var got state
	harness.Run(t, "status", "-o", "json").Require(t, code).Into(t, &got)
	if want := (state{authorized, protected}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func resourceVersions(t *testing.T, world *scenario.World) string {
	t.Helper()
	var versions []string
	for _, object := range world.Objects() {
		live, err := world.Read(t.Context(), object)
		if err != nil || live == nil {
			t.Fatalf("read %s: %v", object, err)
		}
		versions = append(versions, live.GetResourceVersion())
	}
	return strings.Join(versions, " ")
}

// Without a guard, everything can be authorized, and nothing is protected.
func TestStatusAndVerifySeeThatNobodyGuards(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	harness.RemoveRegistration(t)
	harness.Run(t, "authorize").Require(t, 0)
	requireStatus(t, 3, true, false)
	harness.Run(t, "verify").Require(t, 3)
}

// A guard that hangs fails every write, and yet protects nothing that status could vouch for.
func TestVerifyTakesAFailedCallForNoDenial(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	guard := harness.StartGuard(t)
	guard.Kill()
	requireStatus(t, 3, true, false)
}

// TestAuthorizeWhereTheNamesWereTaken is row R14 of the targets.
func TestAuthorizeWhereTheNamesWereTaken(t *testing.T) {
	harness.Take(t)
	t.Run("what is equal is adopted", func(t *testing.T) {
		world := emptyWorld(t)
		for _, object := range world.Objects() {
			apply := scenario.Apply(object, string(object.Manifest()))
			apply.Query.Set("fieldManager", "console")
			pastGuard(t, world, apply)
		}
		harness.StartGuard(t)
		result := harness.Run(t, "authorize").Require(t, 0)
		if strings.Count(result.Stdout, "adopted") < 3 || strings.Contains(result.Stdout, "created") {
			t.Errorf("got %s", result.Stdout)
		}
	})
	t.Run("what differs is refused, and put right only on demand", func(t *testing.T) {
		world := harness.World(t)
		pastGuard(t, world, scenario.Patch(world.Role, `[{"op":"replace","path":"/rules/2/verbs","value":["get"]},{"op":"add","path":"/metadata/labels","value":{"team":"a"}}]`))
		pastGuard(t, world, scenario.Merge(world.Account, `{"automountServiceAccountToken":true}`))
		harness.StartGuard(t)
		before := resourceVersions(t, world)
		harness.Run(t, "authorize").Require(t, 1, "rules[2].verbs", "metadata.labels.team", "automountServiceAccountToken", "--repair")
		if after := resourceVersions(t, world); after != before {
			t.Errorf("the refused run has written: %s, before %s", after, before)
		}
		requireStatus(t, 3, false, true)
		result := harness.Run(t, "authorize", "--repair").Require(t, 0)
		if strings.Count(result.Stdout, "repaired") != 2 {
			t.Errorf("got %s", result.Stdout)
		}
		harness.Run(t, "status").Require(t, 0)
	})
	t.Run("an attacker's binding is refused with what to do", func(t *testing.T) {
		world := emptyWorld(t)
		foreign := strings.Replace(string(world.Binding.Manifest()), `"name":"apigw-ingress-clusterrole"}`, `"name":"cluster-admin"}`, 1)
		pastGuard(t, world, scenario.Apply(world.Binding, foreign))
		harness.StartGuard(t)
		harness.Run(t, "authorize", "--repair").Require(t, 1, "roleRef")
		pastGuard(t, world, scenario.Delete(world.Binding))
		harness.Run(t, "authorize").Require(t, 0)
	})
	t.Run("an older token is used, and no second one made", func(t *testing.T) {
		world := harness.World(t)
		pastGuard(t, world, scenario.Delete(world.Token))
		pastGuard(t, world, scenario.Create(world.Token, strings.Replace(string(world.Token.Manifest()), world.Token.Name, "apigw-ingress-token-x7k2p", 1)))
		harness.StartGuard(t)
		harness.Run(t, "authorize").Require(t, 0, "apigw-ingress-token-x7k2p")
		secrets, err := harness.Clients(t).CoreV1().Secrets(world.Token.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets.Items {
			if secret.Name == world.Token.Name {
				t.Errorf("a second token Secret %s was made", secret.Name)
			}
		}
		harness.Run(t, "status").Require(t, 0)
		old := scenario.Write{Method: "DELETE", Path: world.Token.Collection + "/apigw-ingress-token-x7k2p", ContentType: scenario.JSON}
		if answer, err := world.Guarded.Do(t.Context(), old); err != nil || answer.Code != 403 {
			t.Errorf("delete of the older token: got %d %s %v", answer.Code, answer.Body, err)
		}
		pastGuard(t, world, old)
	})
	report.Line(t, "R14: what is equal is adopted, what differs refused with its paths, an older token used")
}

func TestPreflightNamesWhatIsMissing(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	// The world grants everything to every authenticated user.
	must(t)(nil, harness.Clients(t).RbacV1().ClusterRoleBindings().Delete(t.Context(), "scenario", metav1.DeleteOptions{}))
	if err := testbed.WriteKubeconfig(path, harness.Of(t).Cluster.ConfigFor("eve")); err != nil {
		t.Fatal(err)
	}
	var result struct {
		Checks []struct{ ID, Status, Message, Remedy string }
	}
	harness.RunAs(t, path, "preflight", "-o", "json").Require(t, 3).Into(t, &result)
	want := []string{"kubernetes-version", "admin-role", "private-network", "reserved-kinds", "existing-resources", "tke-cluster"}
	for i, id := range want {
		if i >= len(result.Checks) || result.Checks[i].ID != id {
			t.Fatalf("got %+v, want %v", result.Checks, want)
		}
	}
	role := result.Checks[1]
	if role.Status != "Fail" || !strings.Contains(role.Message, "escalate") || !strings.Contains(role.Remedy, "tke:admin") {
		t.Errorf("got %+v", role)
	}
	harness.RunAs(t, path, "authorize").Require(t, 1, "admin-role")
}

func TestPrivateNetworkModes(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	services := harness.Clients(t).CoreV1().Services(metav1.NamespaceDefault)
	must(t)(services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes-intranet"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 443}}},
	}, metav1.CreateOptions{}))
	t.Cleanup(func() {
		if err := harness.Clients(t).CoreV1().Services(metav1.NamespaceDefault).
			Delete(context.WithoutCancel(t.Context()), "kubernetes-intranet", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	const remedy = "Basic information"
	harness.Run(t, "authorize").Require(t, 1, "private-network", remedy)
	harness.Run(t, "authorize", "--private-network", "warn").Require(t, 0, remedy)
	harness.Run(t, "authorize", "--private-network", "skip").Require(t, 0)
	service, err := services.Get(t.Context(), "kubernetes-intranet", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
	must(t)(services.UpdateStatus(t.Context(), service, metav1.UpdateOptions{}))
	harness.Run(t, "authorize").Require(t, 0)
	harness.Run(t, "preflight").Require(t, 0, "private-network")
}

// TestASecondReservationNeedsNoCode: other kinds and names, and another namespace, from one file.
func TestASecondReservationNeedsNoCode(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	const namespace = "edge-system"
	set := []string{"--reservations", "testdata/reservations"}
	with := func(args ...string) harness.Ran { return harness.Run(t, append(args, set...)...) }
	absolute, err := filepath.Abs("testdata/reservations")
	if err != nil {
		t.Fatal(err)
	}
	harness.StartGuard(t, "--reservations", absolute)
	with("authorize").Require(t, 1, namespace)
	must(t)(harness.Clients(t).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}))
	with("authorize").Require(t, 0, "roles.rbac.authorization.k8s.io/edge-system/edge-router created")
	with("status").Require(t, 0)
	with("verify").Require(t, 0)
	for _, args := range [][]string{
		{"-n", namespace, "label", "role", "edge-router", "a=b"},
		{"-n", namespace, "patch", "configmap", "edge-router", "-p", `{"data":{"mode":"lax"}}`},
		{"-n", namespace, "delete", "rolebinding", "edge-router"},
		{"delete", "namespace", namespace},
	} {
		if _, says, err := harness.Of(t).Cluster.Kubectl(t.Context(), args...); err == nil || !strings.Contains(says, "reserved by Edge Router") {
			t.Errorf("kubectl %v: %v, %s", args, err, says)
		}
	}
	removeEdge(t)
	report.Line(t, "a second reservation of Role, RoleBinding, ConfigMap in its own namespace: authorized and protected by a file")
}

func removeEdge(t *testing.T) {
	t.Helper()
	unguarded, err := scenario.NewClient(harness.Of(t).Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	requireDone(t, unguarded, scenario.Write{Method: "DELETE", Path: "/api/v1/namespaces/edge-system", ContentType: scenario.JSON})
	// The namespace controller asks the guard for each object; what is going already must not be held up.
	harness.Eventually(t, "a reserved namespace that is going anyway is gone", func() (bool, any) {
		live, err := harness.Clients(t).CoreV1().Namespaces().Get(t.Context(), "edge-system", metav1.GetOptions{})
		return apierrors.IsNotFound(err), live.Status
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// RBAC is asked before the guard: whoever may try one write to each resource can verify, and whoever may try none cannot.
func TestVerifyByAnAccountThatMayNotTryEveryWrite(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	// The world lets every authenticated user do everything.
	must(t)(nil, harness.Clients(t).RbacV1().ClusterRoleBindings().Delete(t.Context(), "scenario", metav1.DeleteOptions{}))
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := testbed.WriteKubeconfig(path, harness.Of(t).Cluster.ConfigFor("eve")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{
			"create", "clusterrole", "verifier", "--verb=delete", "--resource=serviceaccounts,secrets",
			"--resource-name=" + world.Account.Name, "--resource-name=" + world.Token.Name,
		},
		{
			"create", "clusterrole", "verifier-rbac", "--verb=get,patch,delete", "--resource=clusterroles,clusterrolebindings",
			"--resource-name=" + world.Role.Name, "--resource-name=" + world.Binding.Name,
		},
		{"create", "clusterrolebinding", "verifier", "--clusterrole=verifier", "--user=eve"},
		{"create", "clusterrolebinding", "verifier-rbac", "--clusterrole=verifier-rbac", "--user=eve"},
	} {
		kubectl(t, args...)
		t.Cleanup(func() { kubectl(t, "delete", args[1], args[2]) })
	}
	harness.StartGuard(t)
	harness.RunAs(t, path, "verify").Require(t, 3)
	var result struct {
		Attacks []struct {
			Resource, Got string
			LeftOut       bool
		}
	}
	harness.RunAs(t, path, "verify", "--permitted-only", "-o", "json").Require(t, 0).Into(t, &result)
	counts := map[string]int{}
	for _, attack := range result.Attacks {
		counts[attack.Got]++
		if attack.LeftOut != (attack.Got == "left out") {
			t.Errorf("got %+v", attack)
		}
	}
	// Three deletions of each of the four. RBAC does not let eve patch a role or a binding that grants what she does not hold.
	if want := 4 * 3; counts["denied"] != want || counts["denied"]+counts["left out"] != len(result.Attacks) {
		t.Errorf("got %v, want %d denied, and all others left out", counts, want)
	}
	kubectl(t, "delete", "clusterrolebinding", "verifier")
	kubectl(t, "create", "clusterrolebinding", "verifier", "--clusterrole=verifier", "--user=mallory")
	harness.RunAs(t, path, "verify", "--permitted-only").Require(t, 3)
}

func TestAuthorizeAwaitsTheGuard(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	harness.RemoveRegistration(t)
	harness.Run(t, "authorize", "--wait=1s", "--await-protection").Require(t, 1)
	requireStatus(t, 3, true, false)
	harness.StartGuard(t)
	harness.Run(t, "authorize", "--await-protection").Require(t, 0)
	requireStatus(t, 0, true, true)
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	// Also while the test is cleaned up.
	if _, says, err := harness.Of(t).Cluster.Kubectl(context.WithoutCancel(t.Context()), args...); err != nil {
		t.Errorf("kubectl %v: %v, %s", args, err, says)
	}
}

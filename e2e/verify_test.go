// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// RBAC is asked before the guard: whoever may try one write to each resource can verify, and whoever may try none cannot.
func TestVerifyByAnAccountThatMayNotTryEveryWrite(t *testing.T) {
	world := newWorld(t)
	// The world lets every authenticated user do everything.
	must(t)(nil, clients(t).RbacV1().ClusterRoleBindings().Delete(t.Context(), "scenario", metav1.DeleteOptions{}))
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := testbed.WriteKubeconfig(path, shared.cluster.ConfigFor("eve")); err != nil {
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
	startGuard(t)
	guardianOf(t, path, "verify").require(t, 3, "writes had the expected result", "refused, but not by the guard")
	var result struct {
		Attacks []struct {
			Resource, Got string
			LeftOut       bool
		}
	}
	guardianOf(t, path, "verify", "--permitted-only", "-o", "json").require(t, 0).into(t, &result)
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
	guardianOf(t, path, "verify", "--permitted-only").require(t, 3, "RBAC lets the caller try none of them", "were left out")
}

func TestAuthorizeAwaitsTheGuard(t *testing.T) {
	newWorld(t)
	removeRegistration(t)
	run(t, "authorize", "--wait=1s", "--await-protection").require(t, 1, "authorized, but not protected", "check the guard's Pods")
	startGuard(t)
	run(t, "authorize", "--await-protection").require(t, 0, "Authorized API Gateway")
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	// Also while the test is cleaned up.
	if _, says, err := shared.cluster.Kubectl(context.WithoutCancel(t.Context()), args...); err != nil {
		t.Errorf("kubectl %v: %v, %s", args, err, says)
	}
}

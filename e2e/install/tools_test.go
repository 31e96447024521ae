// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// liveWithKubectl installs the chart without helm: first as its page says, and then with its hooks, which kubectl takes for ordinary
// objects. Both must leave a guard that denies.
func liveWithKubectl(t *testing.T, n *node.Node) {
	t.Helper()
	createNamespace(t, n)
	rendered := render(t, n, "--set", "hooks.enabled=false")
	for range 2 {
		run(t, n, "kubectl", "apply", "--filename", rendered)
		run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
		run(t, n, "kubectl", "-n", namespace, "wait", "jobs", "--all", "--for=condition=Complete", "--timeout=4m")
	}
	awaitProtection(t, n)
	if long() {
		time.Sleep(2 * time.Minute) // nothing that was applied takes the guard down later
		refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	}
	hooks := render(t, n)
	run(t, n, "kubectl", "apply", "--filename", hooks)
	run(t, n, "kubectl", "-n", namespace, "wait", "job/apigw-guardian-uninstall", "--for=condition=Failed", "--timeout=4m")
	if ready := readyReplicas(t, n); ready != "2" {
		t.Errorf("%s replicas are ready", ready)
	}
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	run(t, n, "kubectl", "delete", "--filename", hooks)
	run(t, n, "kubectl", "delete", "--filename", rendered, "--ignore-not-found")
	requireUnlocked(t, n)
	run(t, n, "kubectl", "get", "denials")
	removeReserved(t, n)
}

// retire deletes the resources of API Gateway by a value. Neither a later upgrade nor one without the value fails.
func retire(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "helm", upgrade("--wait", "--create-namespace")...)
	for _, value := range []string{"true", "true", "false"} {
		run(t, n, "helm", upgrade("--wait", "--set", "authorize.retired="+value)...)
		refuse(t, n, "NotFound", "kubectl", "get", "clusterrole", role)
	}
	run(t, n, "helm", uninstall()...)
	requireNoLeftovers(t, n)
}

// uninstallInAnyOrder creates all objects of the uninstall hook at once, as Argo CD does, so that the Job may come before its permissions.
// It starts the guard again.
func uninstallInAnyOrder(t *testing.T, n *node.Node) {
	t.Helper()
	rendered, err := os.ReadFile(render(t, n, "--show-only", "templates/uninstall.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects := strings.Split(strings.TrimPrefix(string(rendered), "---\n"), "\n---\n")
	for range min(harness.Repetitions(t, 2), 20) {
		rand.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		for _, object := range objects {
			run(t, n, "kubectl", "apply", "--filename", write(t, object))
		}
		run(t, n, "kubectl", "-n", namespace, "wait", "job/apigw-guardian-uninstall", "--for=condition=Complete", "--timeout=3m")
		requireUnlocked(t, n)
		run(t, n, "kubectl", "delete", "--filename", write(t, string(rendered)))
		run(t, n, "kubectl", "-n", namespace, "scale", "deployment", "apigw-guardian", "--replicas=2")
		run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
		awaitProtection(t, n)
	}
}

// awaitProtection waits until the guard denies, after a time in which writes passed.
func awaitProtection(t *testing.T, n *node.Node) {
	t.Helper()
	harness.Eventually(t, "the guard denies a dry-run", func() (bool, any) {
		_, stderr, _ := try(t, n, "kubectl", "label", "clusterrole", role, "a=b", "--dry-run=server")
		return strings.Contains(stderr, "is reserved by"), stderr
	})
}

// requireNoLeftovers wants nothing of the guard in its namespace but what the next install needs.
func requireNoLeftovers(t *testing.T, n *node.Node) {
	t.Helper()
	needed := []string{
		"ConfigMap/kube-root-ca.crt", "ServiceAccount/default", "ConfigMap/apigw-guardian-credentials", "ConfigMap/apigw-guardian-retirements",
	}
	const kinds = "secrets,leases,configmaps,jobs,pods,serviceaccounts,roles,rolebindings"
	// The garbage collector deletes the Pods of Jobs.
	harness.Eventually(t, "nothing is left", func() (bool, any) {
		left := strings.Fields(run(t, n, "kubectl", "-n", namespace, "get", kinds,
			`--output=jsonpath={range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}`))
		left = slices.DeleteFunc(left, func(object string) bool { return slices.Contains(needed, object) })
		return len(left) == 0, left
	})
}

// createNamespace creates the namespace of the guard, unless an earlier life has left it.
func createNamespace(t *testing.T, n *node.Node) {
	t.Helper()
	if _, stderr, err := try(t, n, "kubectl", "create", "namespace", namespace); err != nil && !strings.Contains(stderr, "AlreadyExists") {
		t.Fatal(stderr)
	}
}

// render writes the chart's objects to a file.
func render(t *testing.T, n *node.Node, further ...string) string {
	t.Helper()
	return write(t, run(t, n, "helm", slices.Concat([]string{"template", release, chart}, settings(), further)...))
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

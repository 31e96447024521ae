// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

const record = `
apiVersion: guardian.apigw.io/v1alpha1
kind: AuditRecord
metadata: {name: kept}
spec: {outcome: Denied, source: Import, count: 1, user: {name: alice}, firstTime: "2026-11-28T00:00:00.000000Z", lastTime: "2026-11-28T00:00:00.000000Z"}
`

// The chart without helm: applied twice, changed, and deleted. The guard runs as the account of the chart, outside a Pod.
func TestKubectlApply(t *testing.T) {
	const namespace = "plain"
	createNamespaces(t, namespace)
	args := []string{"--namespace", namespace, "--set", "hooks.enabled=false", "--set", fmt.Sprint("policies.force=", servesPolicies())}
	rendered := renderTo(t, args...)
	kubectl(t, "apply", "--filename", rendered)
	requireUnchanged(t, kubectl(t, "apply", "--filename", rendered), 0)

	token := strings.TrimSpace(kubectl(t, "--namespace", namespace, "create", "token", "apigw-guardian"))
	running, err := cluster.StartGuard(t.Context(), guard, "--token", token, "--namespace", namespace,
		"--owner-clusterrole", "apigw-guardian", "--leader-elect", "--apply-crds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Stop)
	harness.Eventually(t, "the leader applies the CRDs", func() (bool, any) {
		_, says, err := cluster.Kubectl(t.Context(), "get", "crd/auditrecords.guardian.apigw.io", "crd/unlocks.guardian.apigw.io")
		return err == nil, says
	})
	kubectl(t, "wait", "--for=condition=Established", "crd/auditrecords.guardian.apigw.io", "crd/unlocks.guardian.apigw.io", "--timeout=1m")
	kubectl(t, "apply", "--filename", writeFile(t, record))
	if harness.Full(true, false) { // the proof of each retirement waits 11 s
		requireRetirement(t, namespace, rendered, renderTo(t, append(args, "--set", "authorize.retired=true")...))
	}

	changed := renderTo(t, append(args, "--set", "authorize.repair=true")...)
	requireUnchanged(t, kubectl(t, "apply", "--filename", changed), 1) // another Job
	// The CRDs belong to no rendering, so the records stay. The webhook configuration goes with its owner, the ClusterRole.
	running.Stop()
	kubectl(t, "delete", "--filename", changed)
	kubectl(t, "get", "auditrecord", "kept")
	kubectl(t, "wait", "--for=delete", "validatingwebhookconfiguration/apigw-guardian", "--timeout=1m")
	deleteRecord(t)
}

// requireRetirement authorizes, retires twice, and finds that a later upgrade does not fail, each as the Job's account.
func requireRetirement(t *testing.T, namespace, authorized, retired string) {
	t.Helper()
	for _, step := range []struct {
		rendered, role string
	}{
		{authorized, "apigw-ingress-clusterrole"}, {retired, ""}, {retired, ""}, {authorized, ""},
	} {
		kubectl(t, "apply", "--filename", step.rendered)
		token := strings.TrimSpace(kubectl(t, "--namespace", namespace, "create", "token", "apigw-guardian-authorize"))
		args := append(jobArgs(t, step.rendered), "--kubeconfig", cluster.Kubeconfig(), "--token", token)
		if says, err := exec.Command(guard, args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, says)
		}
		found := kubectl(t, "get", "clusterrole", "apigw-ingress-clusterrole", "--ignore-not-found", "--output=jsonpath={.metadata.name}")
		if found != step.role {
			t.Errorf("%q leaves the role %q, want %q", args, found, step.role)
		}
	}
}

// jobArgs returns the arguments of the Job in a rendering.
func jobArgs(t *testing.T, rendered string) []string {
	t.Helper()
	data, err := os.ReadFile(rendered)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range parse(t, data) {
		if object.GetKind() != "Job" {
			continue
		}
		containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
		if err != nil {
			t.Fatal(err)
		}
		args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
		if err != nil {
			t.Fatal(err)
		}
		return args
	}
	t.Fatal("no Job")
	return nil
}

// Releases under other names and in other namespaces, one after another, from CRDs that kubectl applied, and from an older chart.
func TestReleases(t *testing.T) {
	older := copyChart(t, map[string]string{
		"values.yaml": "testdata/values-5c1ec7a.yaml", "templates/definitions.yaml": "testdata/definitions-5c1ec7a.yaml",
	})
	// An API server before 1.30 does not know selectableFields.
	kubectl(t, "apply", "--validate=warn", "--filename", filepath.Join(directory, "files", "crds"))
	kubectl(t, "wait", "--for=condition=Established", "crd/auditrecords.guardian.apigw.io", "--timeout=1m")
	kubectl(t, "apply", "--filename", writeFile(t, record))
	for _, name := range slices.Sorted(maps.Keys(helms))[:harness.Full(2, 1)] {
		first, second := name+"-first", name+"-second"
		for _, release := range []string{first, second} {
			helm(t, name, "install", release, directory, "--namespace", release, "--create-namespace", "--no-hooks")
			kubectl(t, "--namespace", release, "create", "configmap", "apigw-guardian-replicas")
			kubectl(t, "apply", "--filename", renderTo(t, "--namespace", release, "--show-only", "templates/uninstall.yaml"))
			if says, err := uninstallAsHook(t, release); err != nil {
				t.Errorf("uninstall: %v, %s", err, says)
			}
			if left := kubectl(t, "--namespace", release, "get", "configmap", "apigw-guardian-replicas", "--ignore-not-found"); left != "" {
				t.Errorf("uninstall leaves %s", left)
			}
			kubectl(t, "delete", "--filename", renderTo(t, "--namespace", release, "--show-only", "templates/uninstall.yaml"))
			helm(t, name, "uninstall", release, "--namespace", release, "--no-hooks", "--wait")
		}
		// A chart before this one had the CRD as an object of the release.
		kubectl(t, "get", "auditrecord", "kept")
		third := name + "-third"
		helm(t, name, "install", third, older, "--namespace", third, "--create-namespace", "--no-hooks", "--take-ownership")
		for _, values := range []string{"--reuse-values", "--reset-then-reuse-values"} {
			helm(t, name, "upgrade", third, directory, "--namespace", third, "--no-hooks", values, "--set", "mode=observe")
			kubectl(t, "get", "auditrecord", "kept")
		}
		// To a release that owns the CRDs, and back.
		helm(t, name, "upgrade", third, directory, "--namespace", third, "--no-hooks", "--set", "crds.keep=false", "--take-ownership")
		kubectl(t, "annotate", "crd", "auditrecords.guardian.apigw.io", "reservations.guardian.apigw.io", "unlocks.guardian.apigw.io", "helm.sh/resource-policy=keep")
		helm(t, name, "upgrade", third, directory, "--namespace", third, "--no-hooks", "--set", "crds.keep=true")
		helm(t, name, "uninstall", third, "--namespace", third, "--no-hooks", "--wait")
		kubectl(t, "get", "auditrecord", "kept")
	}
	deleteRecord(t)
}

// A cluster moves from one tool to another: helm takes over what kubectl applied.
func TestHelmTakesOver(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(helms)) {
		namespace := name + "-takes-over"
		createNamespaces(t, namespace)
		values := fmt.Sprint("hooks.enabled=false,policies.force=", servesPolicies())
		kubectl(t, "apply", "--filename", renderTo(t, "--namespace", namespace, "--set", values))
		helm(t, name, "install", "apigw-guardian", directory, "--namespace", namespace, "--no-hooks", "--take-ownership")
		helm(t, name, "uninstall", "apigw-guardian", "--namespace", namespace, "--no-hooks", "--wait")
	}
}

// deleteRecord deletes the record once the policies are gone. The API server looks every second.
func deleteRecord(t *testing.T) {
	t.Helper()
	harness.Eventually(t, "the record can be deleted", func() (bool, any) {
		_, says, err := cluster.Kubectl(t.Context(), "delete", "auditrecord", "kept")
		return err == nil, says
	})
}

// For kubectl, hooks are ordinary objects. The uninstall Job must not take the guard down.
func TestAppliedHooksAreHarmless(t *testing.T) {
	const namespace = "applied"
	createNamespaces(t, namespace)
	rendered := renderTo(t, "--namespace", namespace)
	kubectl(t, "apply", "--filename", rendered)
	if says, err := uninstallAsHook(t, namespace); err == nil || !strings.Contains(says, "--force") {
		t.Errorf("uninstall: %v, %s", err, says)
	}
	if replicas := kubectl(t, "--namespace", namespace, "get", "deployment", "apigw-guardian", "--output=jsonpath={.spec.replicas}"); replicas != "2" {
		t.Errorf("%s replicas are wanted", replicas)
	}
	kubectl(t, "delete", "--filename", rendered)
}

// uninstallAsHook runs what the uninstall Job runs, as its account.
func uninstallAsHook(t *testing.T, namespace string) (says string, err error) {
	t.Helper()
	token := strings.TrimSpace(kubectl(t, "--namespace", namespace, "create", "token", "apigw-guardian-uninstall"))
	output, err := exec.Command(guard, "uninstall", "--deployment", namespace+"/apigw-guardian",
		"--kubeconfig", cluster.Kubeconfig(), "--token", token).CombinedOutput()
	return string(output), err
}

// requireUnchanged wants `kubectl apply` to create so many objects, and to change no other.
func requireUnchanged(t *testing.T, says string, created int) {
	t.Helper()
	got := 0
	for line := range strings.Lines(says) {
		switch {
		case strings.HasSuffix(line, " created\n"):
			got++
		case strings.HasPrefix(line, "poddisruptionbudget.policy/"): // kubectl replaces its selector by the same one
		case !strings.HasSuffix(line, " unchanged\n"):
			t.Error(line)
		}
	}
	if got != created {
		t.Errorf("%d objects were created, want %d:\n%s", got, created, says)
	}
}

func renderTo(t *testing.T, further ...string) string {
	t.Helper()
	return writeFile(t, string(template(t, "helm", directory, further...)))
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	says, diagnostics, err := cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("kubectl %q: %v\n%s", args, err, diagnostics)
	}
	return says
}

func helm(t *testing.T, name string, args ...string) {
	t.Helper()
	output, err := exec.Command(helms[name], append(args, "--kubeconfig", cluster.Kubeconfig())...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, output)
	}
}

func stderrOf(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(exit.Stderr)
	}
	return fmt.Sprint(err)
}

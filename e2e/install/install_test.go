// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package install tests what an administrator does: helm install, on a real node, with the image that the Dockerfile makes.
package install

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const (
	chart     = "../../charts/apigw-guardian"
	namespace = "apigw-guardian"
	image     = "localhost/apigw-guardian"
	tag       = "e2e"
)

func TestHelmInstall(t *testing.T) {
	n := startNode(t)
	importImage(t, n)
	install := []string{
		"install", "apigw-guardian", chart, "--namespace", namespace, "--create-namespace", "--wait", "--timeout", "4m",
		"--set", "image.repository=" + image, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never",
	}
	run(t, n, "helm", install...)
	if log := run(t, n, "kubectl", "-n", namespace, "logs", "job/apigw-guardian-authorize"); !strings.HasSuffix(log, "Authorized API Gateway\n") {
		t.Errorf("log of the job: %s", log)
	}
	if ready := run(t, n, "kubectl", "-n", namespace, "get", "deployment", "apigw-guardian", "-o", "jsonpath={.status.readyReplicas}"); ready != "2" {
		t.Errorf("%s replicas are ready", ready)
	}
	refuse(t, n, "denied the request: ClusterRole", "kubectl", "delete", "clusterrole", "apigw-ingress-clusterrole")
	loseReplica(t, n)
	restartUnderLoad(t, n)
	requireHarmlessJob(t, n)
	run(t, n, "helm", "uninstall", "apigw-guardian", "--namespace", namespace, "--wait", "--timeout", "4m")
	requireUnlocked(t, n)

	run(t, n, "kubectl", "label", "clusterrole", "apigw-ingress-clusterrole", "unlocked-")
	run(t, n, "helm", install...)
	run(t, n, "kubectl", "-n", namespace, "scale", "deployment", "apigw-guardian", "--replicas=0")
	run(t, n, "helm", "uninstall", "apigw-guardian", "--namespace", namespace, "--no-hooks", "--wait", "--timeout", "4m")
	requireUnlocked(t, n)

	removeReserved(t, n)
	switchPrivateNetworkOff(t, n)
	refuse(t, n, "Private network access", "helm", install...)
	refuse(t, n, "not found", "kubectl", "get", "clusterrole", "apigw-ingress-clusterrole")
	refuse(t, n, "nosuch", "helm", "template", "apigw-guardian", chart, "--set", "nosuch=1")
}

// loseReplica deletes one replica and goes on writing: every write must be denied by the other, and none must fail.
func loseReplica(t *testing.T, n *node.Node) {
	t.Helper()
	pod := run(t, n, "kubectl", "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[0].metadata.name}")
	run(t, n, "kubectl", "-n", namespace, "delete", "pod", pod, "--wait=false")
	for range 100 {
		refuse(t, n, "denied the request: ClusterRole", "kubectl", "label", "clusterrole", "apigw-ingress-clusterrole", "a=b")
	}
	run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
}

// restarts is how often the guard is restarted under load.
const restarts = 10

// restartUnderLoad is row R6 of the targets: while both replicas are replaced again and again, every forbidden write is denied
// by the guard, and none fails on its way there.
func restartUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	client, err := kubernetes.NewForConfig(n.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var denied atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				_, err := client.RbacV1().ClusterRoles().Patch(ctx, "apigw-ingress-clusterrole", types.MergePatchType,
					[]byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
				switch {
				case ctx.Err() != nil:
				case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "is reserved by"):
					denied.Add(1)
				default:
					t.Errorf("a forbidden write while the guard restarts: %v", err)
				}
			}
		})
	}
	for range restarts {
		run(t, n, "kubectl", "-n", namespace, "rollout", "restart", "deployment/apigw-guardian")
		run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
	}
	cancel()
	load.Wait()
	t.Logf("R6: %d restarts, %d writes denied", restarts, denied.Load())
}

// requireHarmlessJob tries, with the real token of the init job's ServiceAccount, what an attacker who held it would.
func requireHarmlessJob(t *testing.T, n *node.Node) {
	t.Helper()
	hooks := filepath.Join(t.TempDir(), "hooks.yaml")
	rendered := run(t, n, "helm", "template", "apigw-guardian", chart, "--namespace", namespace, "--show-only", "templates/authorize.yaml")
	beforeJob, _, _ := strings.Cut(rendered, "apiVersion: batch/v1")
	if err := os.WriteFile(hooks, []byte(beforeJob), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, n, "kubectl", "apply", "-f", hooks)
	token := strings.TrimSpace(run(t, n, "kubectl", "-n", namespace, "create", "token", "apigw-guardian-authorize"))
	job := func(args ...string) []string { return append([]string{"--token=" + token}, args...) }
	run(t, n, "kubectl", job("get", "clusterrole", "apigw-ingress-clusterrole")...) // the token works
	for _, attempt := range [][]string{
		{"create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--serviceaccount=" + namespace + ":apigw-guardian-authorize"},
		{"create", "clusterrole", "mine", "--verb=*", "--resource=secrets"},
		{"patch", "clusterrole", "apigw-guardian-authorize", "--type=json", `-p=[{"op":"remove","path":"/rules/0/resourceNames"}]`},
		{"patch", "clusterrolebinding", "cluster-admin", "--type=json", `-p=[{"op":"remove","path":"/subjects"}]`},
		{"-n", "kube-system", "get", "secrets"},
		{"-n", "kube-system", "create", "secret", "generic", "mine"},
		{"-n", namespace, "get", "secret", "apigw-guardian-ca"},
		{"-n", namespace, "create", "token", "apigw-guardian"},
		{"delete", "validatingwebhookconfiguration", "apigw-guardian"},
	} {
		refuse(t, n, "orbidden", "kubectl", job(attempt...)...)
	}
	run(t, n, "kubectl", "delete", "-f", hooks)
}

// requireUnlocked wants the registration gone, which the garbage collector may have to see to, and the reserved resources
// there and free.
func requireUnlocked(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "wait", "--for=delete", "validatingwebhookconfiguration/apigw-guardian", "--timeout=1m")
	run(t, n, "kubectl", "label", "clusterrole", "apigw-ingress-clusterrole", "unlocked=yes", "--overwrite")
}

func removeReserved(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "delete", "clusterrolebinding/apigw-ingress-clusterrole-binding", "clusterrole/apigw-ingress-clusterrole")
	run(t, n, "kubectl", "-n", "kube-system", "delete", "secret/apigw-ingress-token-guardian", "serviceaccount/apigw-ingress")
}

// switchPrivateNetworkOff makes the Service by which TKE shows private network access, without an address.
func switchPrivateNetworkOff(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "-n", "default", "create", "service", "loadbalancer", "kubernetes-intranet", "--tcp=443:443")
}

func startNode(t *testing.T) *node.Node {
	t.Helper()
	if os.Getenv("E2E_NODE") != "1" {
		t.Skip("a real node needs root and changes the machine while it runs: set E2E_NODE=1 to run it")
	}
	config := program.Config()
	n, err := node.Start(t.Context(), node.Config{
		Version: config.Version, Builder: config.Builder, Tools: []testbed.Tool{testbed.Helm()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// importImage builds the image from a binary that is built already: the node reaches no registry.
func importImage(t *testing.T, n *node.Node) {
	t.Helper()
	folder := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w",
		"-o", filepath.Join(folder, "bin", "apigw-guardian"), "../../cmd/apigw-guardian")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, output)
	}
	dockerfile, err := filepath.Abs("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := n.BuildImage(t.Context(), node.Image{
		ContextDir: folder, Dockerfile: dockerfile, Tag: image + ":" + tag, Target: "prebuilt",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.ImportImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the node's network and returns what it prints to standard output.
func run(t *testing.T, n *node.Node, name string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(t, n, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s\n%s", name, strings.Join(args, " "), err, stdout, stderr, describe(t, n))
	}
	return stdout
}

// refuse wants a program to fail, and to say why.
func refuse(t *testing.T, n *node.Node, says, name string, args ...string) {
	t.Helper()
	stdout, stderr, err := try(t, n, name, args...)
	if err == nil || !strings.Contains(stderr, says) {
		t.Errorf("%s %s: %v, want a refusal that says %q\n%s%s", name, strings.Join(args, " "), err, says, stdout, stderr)
	}
}

func try(t *testing.T, n *node.Node, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	command := n.Command(t.Context(), name, args...)
	var out, diagnostics bytes.Buffer
	command.Stdout, command.Stderr = &out, &diagnostics
	err = command.Run()
	return out.String(), diagnostics.String(), err
}

// describe shows what a person would look at first.
func describe(t *testing.T, n *node.Node) string {
	t.Helper()
	var all strings.Builder
	for _, args := range [][]string{
		{"-n", namespace, "get", "pods,jobs", "-o", "wide"},
		{"-n", namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", namespace, "logs", "-l", "app.kubernetes.io/name=apigw-guardian", "--tail=30", "--prefix"},
	} {
		stdout, stderr, _ := try(t, n, "kubectl", args...) // it is shown as far as it comes
		all.WriteString(stdout + stderr)
	}
	return all.String()
}

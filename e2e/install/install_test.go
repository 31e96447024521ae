// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package install tests what an administrator does with the chart, on a real node, with the image that the Dockerfile makes.
package install

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// denial is what a denied person reads.
const denial = `Error from server (Forbidden): admission webhook "clusterroles.apigw-guardian.io" denied the request: ` +
	`ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: rules[2].verbs). [record `

const (
	chart     = "../../charts/apigw-guardian"
	release   = "apigw-guardian"
	namespace = "apigw-guardian"
	image     = "localhost/apigw-guardian"
)

// The lives of a release, one after another on one node. Each begins without the reserved resources and ends another way. If one
// fails, the rest cannot run.
func TestHelmInstall(t *testing.T) {
	n := startNode(t)
	type life struct {
		name string
		run  func(*testing.T, *node.Node)
	}
	lives := []life{
		{"the image", buildImages},
		{"helm 4", liveWithHelm4},
		{"the engine changes", changeEngine},
		{"helm 3", liveWithHelm3},
		{"by the document", liveByTheDocument},
		{"the guard's namespace is deleted", loseNamespace},
		{"the port is closed", closePort},
		{"kubectl applies the chart", liveWithKubectl},
		{"the source of the certificate changes", changeTrust},
	}
	if long() {
		lives = append(lives, life{"an older release is upgraded", upgradeOlder}, life{"Argo CD applies the chart", liveWithArgoCD},
			life{"a strict namespace, and pipelines", installOddly})
	}
	lives = append(lives, life{"API Gateway is retired", retire}) // for good: the last
	for _, life := range lives {
		if !t.Run(life.name, func(t *testing.T) { life.run(t, n) }) {
			t.FailNow()
		}
	}
}

func liveWithHelm4(t *testing.T, n *node.Node) {
	t.Helper()
	failToStart(t, n)
	run(t, n, "helm", upgrade("--wait")...)
	requireInstalled(t, n)
	requireNoDrift(t, n, "helm")
	requireSideDoors(t, n, policy.Observe)
	letRun(t, n, "door")
	run(t, n, "helm", "test", release, "--namespace", namespace)
	refuse(t, n, denial, "kubectl", "patch", "clusterrole", role, "--type=json", `-p=[{"op":"replace","path":"/rules/2/verbs","value":["get"]}]`)
	unlockAsPrinted(t, n)
	loseReplica(t, n)
	drainUnderLoad(t, n)
	restartUnderLoad(t, n)
	upgradeAndRollBack(t, n)
	killUnderLoad(t, n)
	startCold(t, n)
	requireHarmlessAccounts(t, n)
	uninstallInAnyOrder(t, n)
	run(t, n, "helm", uninstall()...)
	requireUnlocked(t, n)
	requireNoLeftovers(t, n)
	removeReserved(t, n)
}

func liveWithHelm3(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "apply", "--filename=testdata/lease.yaml")
	requireRefusedInstall(t, n, "helm3")
	run(t, n, "kubectl", "-n", "kube-system", "create", "serviceaccount", account)
	run(t, n, "kubectl", podAs("earlier")...) // before there is a guard
	run(t, n, "helm3", upgrade("--wait", "--set", "sideDoors=enforce")...)
	requireInstalled(t, n)
	requireNoDrift(t, n, "helm3")
	requireSideDoors(t, n, policy.Enforce)
	letRun(t, n, "earlier")
	report := run(t, n, "helm3", "test", release, "--namespace", namespace, "--logs")
	if !strings.Contains(report, "were left out: RBAC does not let the caller try them") {
		t.Errorf("helm test does not say what it left out: %s", report)
	}
	stopGuard(t, n)
	refuse(t, n, "", "helm3", "test", release, "--namespace", namespace) // the guard denies nothing
	run(t, n, "helm3", uninstall("--no-hooks")...)
	requireUnlocked(t, n)
	removeReserved(t, n)
}

// loseNamespace is what row R15 of the targets says of a deleted namespace.
func loseNamespace(t *testing.T, n *node.Node) {
	t.Helper()
	requireRefusedInstall(t, n, "helm")
	run(t, n, "helm", upgrade("--wait")...)
	refuse(t, n, "helm uninstall "+release+" --namespace "+namespace, "kubectl", "delete", "namespace", namespace)
	run(t, n, "kubectl", "delete", "validatingadmissionpolicybinding", "apigw-guardian-installation")
	harness.Eventually(t, "nothing keeps the namespace", func() (bool, any) {
		_, stderr, err := try(t, n, "kubectl", "delete", "namespace", namespace)
		return err == nil, stderr
	})
	refuse(t, n, "failed calling webhook", "kubectl", "label", "clusterrole", role, "a=b")
	refuse(t, n, "failed calling webhook", "kubectl", "delete", "clusterrole", role)
	requireUnrelatedWrites(t, n)
	run(t, n, "sh", "-c", "PATH="+commands(t)+":$PATH; "+inSituation(t, "the guard's namespace was deleted"))
	requireUnlocked(t, n)
	run(t, n, "helm", install("--wait")...) // what is left is no hindrance
	stopGuard(t, n)
	run(t, n, "kubectl", "cordon", "--selector=kubernetes.io/os=linux")
	run(t, n, "helm", uninstall()...) // the hook needs no guard, and runs on the only node
	run(t, n, "kubectl", "uncordon", "--selector=kubernetes.io/os=linux")
	requireUnlocked(t, n)
	requireNoLeftovers(t, n)
	removeReserved(t, n)
}

// startCold ends everything but the store, as when the power of a whole cluster fails, and starts it again: kubelet last, so
// that there is an API server with a registration and without a guard.
func startCold(t *testing.T, n *node.Node) {
	t.Helper()
	n.StopKubelet()
	for _, container := range guardContainers(t, n) {
		if err := n.KillContainer(t.Context(), container); err != nil && !errors.Is(err, node.ErrNotRunning) {
			t.Fatal(err)
		}
	}
	n.StopAPIServer()
	if err := n.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	refuse(t, n, "failed calling webhook", "kubectl", "delete", "clusterrole", role)
	requireUnrelatedWrites(t, n)
	if err := n.StartKubelet(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitDenial(t, n)
}

// awaitDenial waits until the guard answers again.
func awaitDenial(t *testing.T, n *node.Node) {
	t.Helper()
	harness.Eventually(t, "the guard denies a deletion", func() (bool, any) {
		_, stderr, err := try(t, n, "kubectl", "delete", "clusterrole", role)
		if err == nil {
			t.Fatalf("the deletion succeeded\n%s", describe(t, n))
		}
		return strings.Contains(stderr, "is reserved by"), stderr
	})
}

// stopGuard ends the guard and leaves its registration.
func stopGuard(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "-n", namespace, "scale", "deployment", "apigw-guardian", "--replicas=0")
	run(t, n, "kubectl", "-n", namespace, "wait", "pods", "-l", "app.kubernetes.io/component=webhook", "--for=delete", "--timeout=2m")
}

// failToStart installs what cannot run. No write must be held up by that, and the next attempt goes on from there.
func failToStart(t *testing.T, n *node.Node) {
	t.Helper()
	const mistake = `reservations={"a":{"owner":"A","resources":[{"namePrefix":"b","manifest":
		{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"default","name":"a"}}}]}}`
	for _, attempt := range []struct {
		name string
		args []string
	}{
		{"an image that cannot be pulled", install("--timeout", "15s", "--set", "image.tag=nosuch")},
		{"a guard that does not start", upgrade("--timeout", "15s", "--set-json", mistake)},
	} {
		refuse(t, n, "", "helm", attempt.args...)
		refuse(t, n, "NotFound", "kubectl", "get", "validatingwebhookconfiguration", "apigw-guardian")
		if ready := readyReplicas(t, n); ready != "" {
			t.Errorf("%s: %s replicas are ready", attempt.name, ready)
		}
		requireUnrelatedWrites(t, n)
	}
	// Replicas that are not ready do not hold up a drain.
	run(t, n, "kubectl", append(drain, "--timeout=1m")...)
	run(t, n, "kubectl", "uncordon", "--selector=kubernetes.io/os=linux")
}

// requireUnrelatedWrites writes objects of the guarded kinds that are not reserved.
func requireUnrelatedWrites(t *testing.T, n *node.Node) {
	t.Helper()
	objects := [][]string{
		{"clusterrole", "unrelated", "--verb=get", "--resource=pods"},
		{"clusterrolebinding", "unrelated", "--clusterrole=view", "--user=eve"},
		{"--namespace=kube-system", "serviceaccount", "unrelated"},
		{"--namespace=kube-system", "secret", "generic", "unrelated"},
	}
	for _, object := range objects {
		run(t, n, "kubectl", slices.Concat([]string{"create"}, object)...)
	}
	run(t, n, "kubectl", "delete", "clusterrole/unrelated", "clusterrolebinding/unrelated")
	run(t, n, "kubectl", "--namespace=kube-system", "delete", "serviceaccount/unrelated", "secret/unrelated")
}

func requireInstalled(t *testing.T, n *node.Node) {
	t.Helper()
	if log := run(t, n, "kubectl", "-n", namespace, "logs", "job/apigw-guardian-authorize"); !strings.HasSuffix(log, "Authorized API Gateway\n") {
		t.Errorf("log of the job: %s", log)
	}
	if ready := readyReplicas(t, n); ready != "2" {
		t.Errorf("%s replicas are ready", ready)
	}
}

func readyReplicas(t *testing.T, n *node.Node) string {
	t.Helper()
	return run(t, n, "kubectl", "-n", namespace, "get", "deployment", "apigw-guardian", "-o", "jsonpath={.status.readyReplicas}")
}

// requireRefusedInstall installs while private network access is off, and turns it on after that.
func requireRefusedInstall(t *testing.T, n *node.Node, helm string) {
	t.Helper()
	// The Service by which TKE shows private network access, without an address.
	run(t, n, "kubectl", "-n", "default", "create", "service", "loadbalancer", "kubernetes-intranet", "--tcp=443:443")
	says := refuse(t, n, "Private network access", helm, install("--wait")...)
	t.Logf("%s says on the terminal:\n%s", helm, says)
	refuse(t, n, "NotFound", "kubectl", "get", "clusterrole", role)
	run(t, n, "kubectl", "-n", "default", "delete", "service", "kubernetes-intranet")
}

// requireUnlocked wants the registration gone, which the garbage collector may have to see to, and the reserved resources
// there and free.
func requireUnlocked(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "wait", "--for=delete", "validatingwebhookconfiguration/apigw-guardian", "--timeout=1m")
	run(t, n, "kubectl", "label", "clusterrole", role, "unlocked=yes")
	run(t, n, "kubectl", "label", "clusterrole", role, "unlocked-")
}

func removeReserved(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "delete", "--ignore-not-found", "clusterrolebinding/"+binding, "clusterrole/"+role)
	run(t, n, "kubectl", "-n", "kube-system", "delete", "--ignore-not-found", "secret/"+secret, "serviceaccount/"+account)
}

func install(further ...string) []string {
	return slices.Concat([]string{"install", release, chart, "--create-namespace"}, settings(), further)
}

// upgrade also goes on after an install that failed.
func upgrade(further ...string) []string {
	return slices.Concat([]string{"upgrade", "--install", release, chart}, settings(), further)
}

func settings() []string {
	return []string{
		"--namespace", namespace, "--timeout", "4m",
		"--set", "image.repository=" + image, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never",
	}
}

func uninstall(further ...string) []string {
	return append([]string{"uninstall", release, "--namespace", namespace, "--wait", "--timeout", "4m"}, further...)
}

func startNode(t *testing.T) *node.Node {
	t.Helper()
	if os.Getenv("E2E_NODE") != "1" {
		t.Skip("a real node needs root and changes the machine while it runs: set E2E_NODE=1 to run it")
	}
	config := program.Config()
	n, err := node.Start(t.Context(), node.Config{
		Version: config.Version, Builder: config.Builder, Tools: []testbed.Tool{testbed.Helm(), testbed.Helm3()},
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

// long says that make e2e-long runs, or a part of it: there is time for whole builds and for minutes of waiting.
func long() bool { return os.Getenv("E2E_REPETITIONS") != "" }

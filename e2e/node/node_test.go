// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const (
	probeImage   = "localhost/apigw-node-probe:1"
	probeService = "http://10.96.100.1"
	greeting     = "hello from a Pod\n"
)

// requireSwitch skips the test unless E2E_NODE asks for it: 1 demands it, and fails where it cannot run; auto runs it where
// it can.
func requireSwitch(t *testing.T) {
	t.Helper()
	wanted := os.Getenv("E2E_NODE")
	if wanted != "1" && wanted != "auto" {
		t.Skip("a real node needs root and changes the machine while it runs: set E2E_NODE=1 to run it")
	}
	missing := Requirements()
	if len(missing) == 0 {
		return
	}
	reason := "this machine cannot run a node: " + strings.Join(missing, "; ")
	if wanted == "auto" {
		t.Skip(reason)
	}
	t.Fatal(reason)
}

// TestNodeRunsPods runs Pods on one node, kills the owner of a second node, and checks that nothing is left of either.
func TestNodeRunsPods(t *testing.T) {
	actAsOwner(t)
	requireSwitch(t)
	tunablesBefore, err := originalTunables()
	if err != nil {
		t.Fatal(err)
	}
	node, err := Start(t.Context(), Config{Builder: testbed.Builder{Progress: os.Stderr}, Tools: []testbed.Tool{testbed.Helm(), testbed.Helm3()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	})
	runWorkload(t, node)
	requireHello(t, node)
	requireJobLog(t, node)
	requireServiceRoutedWebhook(t, node)
	requireHelm(t, node)

	t.Run("what a killed owner leaves is swept, and a living node is not", func(t *testing.T) { killOwner(t) })
	t.Run("an interrupted start leaves nothing", func(t *testing.T) { interruptOwner(t) })

	restart(t, node)
	requireHello(t, node)

	left := inventoryOf(t, node.claim)
	left.requireInUse(t)
	for range 2 {
		if err := node.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	left.requireGone(t)
	tunablesAfter, err := originalTunables()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range tunablesBefore {
		if got := tunablesAfter[path]; got != want {
			t.Errorf("%s = %q after the last node, want %q as before", path, got, want)
		}
	}
	if err := node.StartKubelet(t.Context()); !errors.Is(err, testbed.ErrStopped) {
		t.Errorf("StartKubelet after Stop = %v, want ErrStopped", err)
	}
}

// runWorkload builds and imports the image and runs it as testdata/workload.yaml says.
func runWorkload(t *testing.T, node *Node) {
	t.Helper()
	folder := t.TempDir()
	dockerfile, err := filepath.Abs("testdata/probe/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if err := BuildProgram(t.Context(), "./testdata/probe", filepath.Join(folder, "built")); err != nil {
		t.Fatal(err)
	}
	archive, err := node.BuildImage(t.Context(), Image{
		ContextDir: folder, Dockerfile: dockerfile, Tag: probeImage, BuildArgs: map[string]string{"PROGRAM": "built"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.ImportImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	createCertificate(t, node)
	kubectl(t, node, "apply", "--filename=testdata/workload.yaml")
	kubectl(t, node, "rollout", "status", "deployment/probe", "--timeout=2m")
}

// createCertificate puts the probe's serving certificate into a Secret.
func createCertificate(t *testing.T, node *Node) {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey("probe.default.svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Data:       map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
	if _, err := clientsOf(t, node).CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// requireHello wants the Service to answer from its Pods. kube-proxy notices a moment later than kubectl that they are ready.
func requireHello(t *testing.T, node *Node) {
	t.Helper()
	var body []byte
	err := wait.PollUntilContextTimeout(t.Context(), readyPoll, readyTimeout, true, func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, probeService, http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := node.HTTPClient().Do(request)
		if err != nil {
			return false, nil // the Service has no endpoint yet
		}
		defer func() { _ = response.Body.Close() }()
		body, err = io.ReadAll(response.Body)
		return true, err
	})
	if err != nil || string(body) != greeting {
		t.Errorf("the Service answers %q, %v; want %q", body, err, greeting)
	}
}

func requireJobLog(t *testing.T, node *Node) {
	t.Helper()
	kubectl(t, node, "wait", "--for=condition=complete", "job/probe", "--timeout=2m")
	if got := kubectl(t, node, "logs", "job/probe"); got != greeting {
		t.Errorf("log of the Job = %q, want %q", got, greeting)
	}
}

// requireServiceRoutedWebhook wants the API server to ask a Pod by the ClusterIP of its Service.
func requireServiceRoutedWebhook(t *testing.T, node *Node) {
	t.Helper()
	clients := clientsOf(t, node)
	secret, err := clients.CoreV1().Secrets("default").Get(t.Context(), "probe", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path, fail, none := "/deny", admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone
	hooks := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err = hooks.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "probe.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				Service:  &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "probe", Path: &path},
				CABundle: secret.Data[corev1.TLSCertKey],
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{"probe": "deny"}},
			FailurePolicy:           &fail,
			SideEffects:             &none,
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitDenial(t, clients)
	if err := hooks.Delete(t.Context(), "probe", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitDenial asks until the API server has noticed the webhook. An error of any other kind is one of the way to it.
func awaitDenial(t *testing.T, clients kubernetes.Interface) {
	t.Helper()
	const message = `admission webhook "probe.example.com" denied the request: denied by a Pod`
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{"probe": "deny"}}}
	for {
		_, err := clients.CoreV1().ConfigMaps("default").Create(t.Context(), object,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			continue
		}
		if !apierrors.IsForbidden(err) || err.Error() != message {
			t.Errorf("a denied create says %q, want %q", err, message)
		}
		return
	}
}

func requireHelm(t *testing.T, node *Node) {
	t.Helper()
	for program, version := range map[string]string{"helm": testbed.HelmVersion, "helm3": testbed.Helm3Version} {
		command := node.Command(t.Context(), program, "version", "--template={{.Version}}")
		if output, err := command.Output(); err != nil || string(output) != version {
			t.Errorf("%s version prints %q, %v; want %s", program, output, err, version)
		}
		if output, err := node.Command(t.Context(), program, "list", "--all-namespaces").CombinedOutput(); err != nil {
			t.Errorf("%s list: %v\n%s", program, err, output)
		}
	}
}

// restart restarts what a test may want to restart.
func restart(t *testing.T, node *Node) {
	t.Helper()
	node.StopKubelet()
	node.StopAPIServer()
	if err := errors.Join(node.StartAPIServer(t.Context()), node.StartKubelet(t.Context())); err != nil {
		t.Fatal(err)
	}
	kubectl(t, node, "rollout", "restart", "deployment/probe")
	kubectl(t, node, "rollout", "status", "deployment/probe", "--timeout=2m")
}

func kubectl(t *testing.T, node *Node, args ...string) string {
	t.Helper()
	stdout, _, err := node.Kubectl(t.Context(), args...)
	if err != nil {
		pods, _, _ := node.Kubectl(t.Context(), "describe", "pods")
		t.Fatalf("%v\n%s", err, pods)
	}
	return stdout
}

func clientsOf(t *testing.T, node *Node) kubernetes.Interface {
	t.Helper()
	clients, err := kubernetes.NewForConfig(node.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// killOwner runs a node with Pods in another program, kills that with SIGKILL, and sweeps.
func killOwner(t *testing.T) {
	t.Helper()
	owner, claim := startOwner(t, "run")
	left := inventoryOf(t, claim)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed
	left.requireInUse(t)
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	left.requireGone(t)
}

// interruptOwner interrupts another program, as Ctrl-C does, while its node starts.
func interruptOwner(t *testing.T) {
	t.Helper()
	owner, claim := startOwner(t, "start")
	left := inventoryOf(t, claim)
	if len(left.pids) == 0 {
		t.Error("nothing of the node ran when its start was interrupted")
	}
	if err := owner.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := owner.Wait(); err != nil {
		t.Errorf("the interrupted program: %v", err)
	}
	left.requireGone(t)
}

// startOwner runs this test binary again as the owner of a node, and returns once the node runs, or has begun to start, and
// what it claims.
func startOwner(t *testing.T, role string) (*exec.Cmd, *claim) {
	t.Helper()
	owner := exec.Command(os.Args[0], "-test.run=^TestNodeRunsPods$")
	owner.Env = append(os.Environ(), "NODE_ACT_AS_OWNER="+role)
	owner.Stderr = os.Stderr
	output, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill() }) // it has ended, unless this test failed
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatalf("the owner says %q: %v", line, err)
	}
	name := strings.TrimSpace(line)
	claims, err := readClaims()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range claims {
		if c.Name == name {
			return owner, c
		}
	}
	t.Fatalf("no claim is named %q", name)
	return nil, nil
}

// actAsOwner is the program of startOwner. It prints the name of its claim.
func actAsOwner(t *testing.T) {
	t.Helper()
	role := os.Getenv("NODE_ACT_AS_OWNER")
	if role == "" {
		return
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT)
	defer stop()
	if role == "start" {
		go announceStart(ctx)
	}
	node, err := Start(ctx, Config{})
	if role == "start" && errors.Is(err, context.Canceled) {
		stop()
		os.Exit(0) //nolint:gocritic // stop is called
	}
	if err != nil {
		t.Fatal(err)
	}
	runWorkload(t, node)
	fmt.Println(node.Namespace())
	select {}
}

// announceStart prints the claim's name once etcd has begun to write, in the middle of a start.
func announceStart(ctx context.Context) {
	for ctx.Err() == nil {
		claims, _ := readClaims()
		for _, c := range claims {
			_, err := os.Stat(filepath.Join(c.Dir, "cluster", "etcd"))
			if strings.HasPrefix(c.Name, fmt.Sprintf("%s%d-", namePrefix, os.Getpid())) && err == nil {
				fmt.Println(c.Name)
				return
			}
		}
	}
}

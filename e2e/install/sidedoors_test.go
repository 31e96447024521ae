// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

const gated = `{"spec":{"serviceAccountName":"` + account + `","schedulingGates":[{"name":"example.com/test"}]}}`

// podAs returns the arguments that create a Pod of the reserved ServiceAccount, which no node gets until letRun.
func podAs(name string) []string {
	return []string{
		"-n", "kube-system", "run", name, "--image=" + image + ":" + tag, "--image-pull-policy=Never", "--restart=Never",
		"--overrides=" + gated, "--command", "--", "/apigw-guardian", "version",
	}
}

// letRun lets the scheduler have the Pod, and wants the kubelet to mount its token and to run it. The guard is not asked about that token.
func letRun(t *testing.T, n *node.Node, name string) {
	t.Helper()
	run(t, n, "kubectl", "-n", "kube-system", "patch", "pod", name, "--type=json", `-p=[{"op":"remove","path":"/spec/schedulingGates"}]`)
	run(t, n, "kubectl", "-n", "kube-system", "wait", "pod", name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=1m")
	log, err := os.ReadFile(n.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	tokens := 0
	for line := range bytes.Lines(log) {
		var event struct {
			User           struct{ Username string }
			ObjectRef      struct{ Resource, Subresource, Namespace, Name string }
			ResponseStatus struct{ Code int }
			Annotations    map[string]string
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		if event.ObjectRef.Subresource != "token" || event.ObjectRef.Name != account || event.User.Username != "system:node:"+node.Name {
			continue
		}
		tokens++
		for key := range event.Annotations {
			if strings.HasPrefix(key, "side-door-") || strings.Contains(key, "webhook") {
				t.Errorf("the token request of the kubelet has the annotation %s", key)
			}
		}
		if event.ResponseStatus.Code != 201 {
			t.Errorf("the token request of the kubelet got %d", event.ResponseStatus.Code)
		}
	}
	if tokens == 0 {
		t.Error("the kubelet has requested no token of the reserved ServiceAccount")
	}
	run(t, n, "kubectl", "-n", "kube-system", "delete", "pod", name, "--now")
}

// requireSideDoors tries two side doors: with observe they pass with a warning, and the Pod "door" waits; with enforce they are denied.
func requireSideDoors(t *testing.T, n *node.Node, mode policy.Mode) {
	t.Helper()
	since := time.Now().Add(-time.Second)
	writes := map[string][]string{
		"serviceaccounts/kube-system/" + account: {"-n", "kube-system", "create", "token", account},
		"pods/kube-system/door":                  podAs("door"),
	}
	for object, args := range writes {
		stdout, stderr, err := try(t, n, "kubectl", args...)
		if mode == policy.Enforce {
			if err == nil || !strings.Contains(stderr, `admission webhook "side-door-`) || stdout != "" {
				t.Errorf("%s with side doors enforced: %v\n%s", object, err, stderr)
			}
			requireSideDoorRecord(t, n, object, v1alpha1.Denied, since)
			openAsPrinted(t, n, stderr, args)
			continue
		}
		if err != nil || !strings.Contains(stderr, "Warning: apigw-guardian would deny this") || stdout == "" {
			t.Errorf("%s with side doors observed: %v\n%s", object, err, stderr)
		}
		requireSideDoorRecord(t, n, object, v1alpha1.WouldDeny, since)
	}
}

// openAsPrinted opens a side door by the second line of its denial, and closes it again.
func openAsPrinted(t *testing.T, n *node.Node, denial string, args []string) {
	t.Helper()
	shell := "PATH=" + commands(t) + ":$PATH; "
	_, command, found := strings.Cut(denial, "\nTo change it on purpose, a cluster administrator runs: ")
	if !found {
		t.Fatalf("the denial names no command: %s", denial)
	}
	run(t, n, "sh", "-c", shell+command)
	run(t, n, "kubectl", args...)
	run(t, n, "sh", "-c", shell+"kubectl get unlocks -o name | sed s,.*/,, | xargs -n1 apigw-guardian lock")
	run(t, n, "kubectl", "-n", "kube-system", "delete", "pod", "door", "--now", "--ignore-not-found")
	refuse(t, n, "side-door-", "kubectl", args...)
}

func requireSideDoorRecord(t *testing.T, n *node.Node, object string, outcome v1alpha1.Outcome, since time.Time) {
	t.Helper()
	records, err := store.New(n.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	found, err := records.List(t.Context(), audit.Filter{Outcome: string(outcome), Resource: `"` + object + `"`, Since: since})
	if err != nil || len(found) != 1 || found[0].Spec.Reason != string(policy.SideDoor) {
		t.Errorf("%s: got records %+v, %v", object, found, err)
	}
}

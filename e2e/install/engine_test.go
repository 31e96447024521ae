// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// changeEngine installs with policies alone, and uninstalls. make e2e-long also changes the engine.
func changeEngine(t *testing.T, n *node.Node) {
	t.Helper()
	shell := "PATH=" + commands(t) + ":$PATH; "
	run(t, n, "helm", upgrade("--wait", "--create-namespace", "--set", "engine=policy")...)
	if pods := run(t, n, "kubectl", "-n", namespace, "get", "pods", "-o", "name"); pods != "" {
		t.Errorf("Pods run: %s", pods)
	}
	run(t, n, "sh", "-c", shell+"apigw-guardian verify")
	run(t, n, "sh", "-c", shell+"apigw-guardian status")
	if os.Getenv("E2E_REPETITIONS") != "" {
		changeEngineUnderLoad(t, n)
		healByController(t, n)
	}
	run(t, n, "helm", uninstall()...)
	requireEnded(t, n)
	removeReserved(t, n)
}

// changeEngineUnderLoad changes the engine while forbidden writes go on: none may pass. It ends with policies and the controller.
func changeEngineUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	before := reservedVersions(t, n)
	l := startLoad(t, n)
	const controller = "policy,controller.enabled=true"
	for _, engine := range []string{"webhook", "both", "policy", "both", controller, "webhook", "policy", "webhook"} {
		run(t, n, "helm", upgrade("--wait", "--set", "engine="+engine)...)
		requireEngine(t, n, engine)
	}
	l.end(t)
	if after := reservedVersions(t, n); after != before {
		t.Errorf("what is reserved was written: resource versions %s, before %s", after, before)
	}
	t.Logf("8 changes of the engine: %s", l)

	run(t, n, "helm", upgrade("--wait", "--set", "engine=both")...)
	requireRecordsOfBoth(t, n)
	run(t, n, "helm", uninstall()...)
	requireEnded(t, n)
	run(t, n, "helm", upgrade("--wait", "--create-namespace", "--set", "engine="+controller)...)
}

// requireEngine wants what the engine has, and nothing of another one.
func requireEngine(t *testing.T, n *node.Node, engine string) {
	t.Helper()
	engine, _, _ = strings.Cut(engine, ",")
	found := run(t, n, "kubectl", "get", "validatingadmissionpolicies,validatingadmissionpolicybindings",
		"-l", "guardian.apigw.io/reservation", "-o", "name")
	want := map[string]int{"webhook": 0, "policy": 8, "both": 8}[engine]
	if got := strings.Count(found, "\n"); got != want || strings.Count(found, "-backstop\n") != want*strings.Count(engine, "both") {
		t.Errorf("engine %s has the policies and bindings %s", engine, found)
	}
	if _, _, err := try(t, n, "kubectl", "get", "validatingwebhookconfiguration", "apigw-guardian"); (err == nil) != (engine != "policy") {
		t.Errorf("engine %s: the webhook configuration: %v", engine, err)
	}
	says := refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	if strings.Contains(says, "ValidatingAdmissionPolicy") != (engine == "policy") {
		t.Errorf("engine %s: another one denies: %s", engine, says)
	}
}

// requireRecordsOfBoth wants a record for each denial: the policies must not deny before the webhook.
func requireRecordsOfBoth(t *testing.T, n *node.Node) {
	t.Helper()
	l := underLoad(t, n, func() {
		run(t, n, "kubectl", "-n", namespace, "rollout", "restart", "deployment/apigw-guardian")
		rolloutStatus(t, n)
	})
	t.Logf("engine both, records compared with denials: %s", l)
}

// healByController changes the role past the policies, as a client does that deletes the binding first.
func healByController(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian-controller", "--timeout=2m")
	harness.Eventually(t, "the controller publishes the reservation", func() (bool, any) {
		_, says, err := try(t, n, "kubectl", "get", "reservation", "apigw-ingress")
		return err == nil, says
	})
	for _, condition := range []string{"Protected", "InSync", "Authorized"} {
		run(t, n, "kubectl", "wait", "--for=condition="+condition, "reservation/apigw-ingress", "--timeout=1m")
	}
	run(t, n, "kubectl", "delete", "validatingadmissionpolicybinding", "apigw-guardian-clusterroles")
	harness.Eventually(t, "the role can be written", func() (bool, any) {
		_, says, err := try(t, n, "kubectl", "label", "clusterrole", role, "tampered=yes")
		return err == nil, says
	})
	harness.Eventually(t, "the controller restores the role", func() (bool, any) {
		var live struct {
			Metadata struct{ Labels map[string]string }
		}
		err := json.Unmarshal([]byte(run(t, n, "kubectl", "get", "clusterrole", role, "-o", "json")), &live)
		return err == nil && live.Metadata.Labels["tampered"] == "", live
	})
	run(t, n, "kubectl", "wait", "--for=condition=Protected=False", "reservation/apigw-ingress", "--timeout=1m")
	if log := run(t, n, "kubectl", "-n", namespace, "logs", "deployment/apigw-guardian-controller"); strings.Contains(log, "is forbidden") {
		t.Errorf("the chart does not grant what the controller needs: %s", log)
	}
}

// requireEnded wants nothing left of any engine.
func requireEnded(t *testing.T, n *node.Node) {
	t.Helper()
	// The API server reads policies once a second.
	harness.Eventually(t, "nothing denies", func() (bool, any) {
		_, says, err := try(t, n, "kubectl", "label", "clusterrole", role, "a=b", "--dry-run=server")
		return err == nil, says
	})
	requireUnlocked(t, n)
	requireNoLeftovers(t, n)
	harness.Eventually(t, "nothing of the release is left in the cluster", func() (bool, any) {
		left := run(t, n, "kubectl", "get", "-o", "name", "-l", "app.kubernetes.io/name=apigw-guardian",
			"validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings")
		return left == "", left
	})
}

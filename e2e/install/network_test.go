// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// closePort installs where the API server cannot reach port 9443 of Pods: nothing is locked, and the install says what to do. Then each
// of the two remedies works.
func closePort(t *testing.T, n *node.Node) {
	t.Helper()
	drop := []string{"OUTPUT", "--protocol", "tcp", "--dport", "9443", "--jump", "DROP"}
	run(t, n, "iptables", append([]string{"--insert"}, drop...)...)
	says := refuse(t, n, "TCP port 9443 from the control plane", "helm", install("--wait", "--set", "authorize.wait=30s")...)
	t.Logf("helm says on the terminal:\n%s", says)
	if policies := failurePolicies(t, n); !strings.Contains(policies, "Ignore") {
		t.Errorf("failure policies: %s", policies)
	}
	removeReserved(t, n) // nothing is locked
	requireUnrelatedWrites(t, n)

	run(t, n, "helm", upgrade("--wait", "--set", "webhook.port=10250")...)
	requireInstalled(t, n)
	awaitDenial(t, n)
	run(t, n, "iptables", append([]string{"--delete"}, drop...)...)

	// One node runs one replica.
	ports := "webhook.port=19443,webhook.probesPort=18081,webhook.metricsPort=18080"
	run(t, n, "helm", upgrade("--wait", "--set", "hostNetwork=true,replicas=1,"+ports)...)
	awaitDenial(t, n)
	if policies := failurePolicies(t, n); strings.Contains(policies, "Ignore") {
		t.Errorf("failure policies: %s", policies)
	}
	address := run(t, n, "kubectl", "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[?(@.spec.hostNetwork==true)].status.podIP}")
	host := run(t, n, "kubectl", "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	if address != host {
		t.Errorf("the Pod has the address %s, and the node %s", address, host)
	}
	run(t, n, "helm", uninstall()...)
	requireUnlocked(t, n)
	removeReserved(t, n)
}

// failurePolicies returns those of all webhooks but the side doors', which fail open while the guard observes these.
func failurePolicies(t *testing.T, n *node.Node) string {
	t.Helper()
	webhooks := run(t, n, "kubectl", "get", "validatingwebhookconfiguration", "apigw-guardian",
		"-o", `jsonpath={range .webhooks[*]}{.name}={.failurePolicy}{" "}{end}`)
	return strings.Join(slices.DeleteFunc(strings.Fields(webhooks), func(w string) bool { return strings.HasPrefix(w, "side-door-") }), " ")
}

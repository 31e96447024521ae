// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// installOddly installs as pipelines do, and where administrators are strict. What fails leaves nothing locked, and nothing behind.
func installOddly(t *testing.T, n *node.Node) {
	t.Helper()
	createNamespace(t, n)
	run(t, n, "kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
	run(t, n, "kubectl", "-n", namespace, "create", "quota", "strict",
		"--hard=requests.cpu=1,requests.memory=1Gi,limits.memory=1Gi,pods=6,count/jobs.batch=3")

	// Terraform's atomic, and Flux' remediation. The init job fails.
	run(t, n, "kubectl", "-n", "default", "create", "service", "loadbalancer", "kubernetes-intranet", "--tcp=443:443")
	refuse(t, n, "Private network access", "helm", install("--wait", "--rollback-on-failure")...)
	run(t, n, "kubectl", "-n", "default", "delete", "service", "kubernetes-intranet")
	requireGone(t, n)

	// No node fits, so neither a replica nor the uninstall Job starts.
	refuse(t, n, "", "helm", install("--wait", "--timeout", "15s", "--set", "nodeSelector.pool=nosuch,jobs.activeDeadlineSeconds=5")...)
	refuse(t, n, "NotFound", "kubectl", "get", "validatingwebhookconfiguration", "apigw-guardian")
	requireUnrelatedWrites(t, n)
	refuse(t, n, "apigw-guardian-uninstall", "helm", uninstall()...)
	run(t, n, "helm", uninstall("--no-hooks")...)
	run(t, n, "kubectl", "-n", namespace, "delete", "job", "apigw-guardian-uninstall") // it stays for a day
	requireGone(t, n)

	// A proxy that does not exist is for other hosts than the API server.
	run(t, n, "helm", install("--wait", "--set", "extraEnv[0].name=HTTPS_PROXY,extraEnv[0].value=http://10.255.255.1:3128")...)
	requireInstalled(t, n)
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	// The fix of a failed upgrade is another upgrade.
	refuse(t, n, "", "helm", upgrade("--wait", "--timeout", "15s", "--rollback-on-failure", "--set", "image.tag=nosuch")...)
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	run(t, n, "helm", upgrade("--wait", "--set", "replicas=1")...)
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	run(t, n, "helm", uninstall()...)
	requireUnlocked(t, n)
	run(t, n, "kubectl", "-n", namespace, "delete", "quota", "strict")
	run(t, n, "kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")
	requireNoLeftovers(t, n)
	removeReserved(t, n)
}

// requireGone wants nothing of a release that failed, but what the API server makes in each namespace.
func requireGone(t *testing.T, n *node.Node) {
	t.Helper()
	requireNoLeftovers(t, n)
	const kinds = "validatingwebhookconfigurations,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
	left := run(t, n, "kubectl", "get", kinds, "--selector=app.kubernetes.io/instance="+release, "--output=name")
	if left += run(t, n, "kubectl", "get", "validatingwebhookconfigurations", "--output=name"); left != "" {
		t.Errorf("left: %s", left)
	}
	removeReserved(t, n)
}

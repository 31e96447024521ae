// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// changeTrust changes the source of the serving certificate while forbidden writes go on: none may fail. cert-manager's controllers issue.
// Then no node has the image of the uninstall Job.
func changeTrust(t *testing.T, n *node.Node) {
	t.Helper()
	const module = "github.com/cert-manager/cert-manager"
	crds := filepath.Join(harness.ModuleDir(t, "../certmanager", module), "deploy", "crds")
	run(t, n, "kubectl", "apply", "--server-side", "--filename", crds)
	run(t, n, "kubectl", "wait", "--for=condition=Established", "crd/certificates.cert-manager.io", "--timeout=1m")
	controllers, err := n.StartProgram(t.Context(), testbed.Program{
		Name: "certmanager", Path: harness.BuildModule(t, "../certmanager", module), Env: []string{"KUBECONFIG=" + n.Kubeconfig()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(controllers.Stop)

	run(t, n, "helm", upgrade("--wait", "--create-namespace")...)
	l := underLoad(t, n, func() {
		// cert-manager leaves its Secret.
		for _, mode := range []string{"cert-manager", "provided,certs.secretName=apigw-guardian-serving", "builtin,webhook.port=443"} {
			run(t, n, "helm", upgrade("--wait", "--set", "certs.mode="+mode)...)
			rolloutStatus(t, n)
		}
	})
	t.Logf("from builtin to cert-manager, provided and builtin: %s", l)
	uninstallWithoutImage(t, n)
	removeReserved(t, n)
}

// uninstallWithoutImage uninstalls a release whose uninstall Job cannot run. It ends at the deadline of the Job, and what the notes of the
// release say then works.
func uninstallWithoutImage(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "helm", upgrade("--no-hooks", "--set", "image.tag=nosuch,jobs.activeDeadlineSeconds=10")...)
	says := refuse(t, n, "apigw-guardian-uninstall", "helm", uninstall()...)
	t.Logf("helm says on the terminal:\n%s", says)
	refuse(t, n, "is reserved by", "kubectl", "delete", "clusterrole", role)
	notes := run(t, n, "helm", "get", "notes", release, "--namespace", namespace)
	const prefix = "  helm uninstall " + release + " --namespace " + namespace
	if !strings.Contains(notes, prefix+" --no-hooks\n") {
		t.Errorf("the notes do not name --no-hooks:\n%s", notes)
	}
	run(t, n, "helm", uninstall("--no-hooks")...)
	requireUnlocked(t, n)
}

// drainUnderLoad drains the only node. The disruption budget keeps one of two ready replicas, which denies.
func drainUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	l := underLoad(t, n, func() {
		refuse(t, n, "disruption budget", "kubectl", append(drain, "--timeout=10s")...)
		run(t, n, "kubectl", "uncordon", "--selector=kubernetes.io/os=linux")
		rolloutStatus(t, n)
	})
	t.Logf("the only node drained: %s", l)
}

// drain is the command that the chart's page names.
var drain = []string{"drain", "--selector=kubernetes.io/os=linux", "--ignore-daemonsets", "--delete-emptydir-data"}

// The commit of a chart and a program that were released before issue 13.
const (
	olderCommit = "5c1ec7a"
	olderTag    = "e2e-older"
)

// upgradeOlder upgrades a release of an older chart and program, in another namespace and under another name than the lives before and
// after it, with the values of the older chart and with today's; and rolls it back.
func upgradeOlder(t *testing.T, n *node.Node) {
	t.Helper()
	sources := t.TempDir()
	unpackCommit(t, olderCommit, sources)
	buildImageOf(t, n, sources, olderTag, "v0.0.1-e2e")
	const elsewhere = "older-guard"
	older := func(command, chart, tag string, further ...string) {
		t.Helper()
		run(t, n, "helm", slices.Concat([]string{command, elsewhere, chart, "--namespace", elsewhere, "--wait", "--timeout", "4m",
			"--set", "image.repository=" + image, "--set-string", "image.tag=" + tag, "--set", "image.pullPolicy=Never"}, further)...)
		refuse(t, n, "reserved by", "kubectl", "delete", "clusterrole", role)
	}
	run(t, n, "kubectl", "create", "namespace", elsewhere)
	// The older chart cannot go back from today's definitions.
	run(t, n, "kubectl", "delete", "customresourcedefinition", "auditrecords.guardian.apigw.io", "unlocks.guardian.apigw.io", "--ignore-not-found")
	older("install", filepath.Join(sources, "charts", "apigw-guardian"), olderTag)
	older("upgrade", chart, tag, "--reuse-values")
	run(t, n, "helm", "rollback", elsewhere, "1", "--namespace", elsewhere, "--wait", "--timeout", "4m")
	refuse(t, n, "reserved by", "kubectl", "delete", "clusterrole", role)
	older("upgrade", chart, tag, "--reset-then-reuse-values")
	run(t, n, "helm", "uninstall", elsewhere, "--namespace", elsewhere, "--wait", "--timeout", "4m")
	requireUnlocked(t, n)
	run(t, n, "kubectl", "get", "denials")
	run(t, n, "kubectl", "delete", "namespace", elsewhere)
	removeReserved(t, n)
}

// unpackCommit writes the files of a commit of this repository.
func unpackCommit(t *testing.T, commit, dir string) {
	t.Helper()
	archive := exec.CommandContext(t.Context(), "git", "archive", commit)
	archive.Dir = "../.."
	output, err := archive.Output()
	if err != nil {
		t.Fatalf("git archive %s: %v: a shallow clone lacks the commit: git fetch --unshallow", commit, err)
	}
	for reader := tar.NewReader(bytes.NewReader(output)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(header.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

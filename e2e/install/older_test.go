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
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// The commit of a chart and a program that were released before issue 13.
const (
	olderCommit = "5c1ec7a"
	olderTag    = "e2e-older"
)

// upgradeOlder upgrades a release of an older chart and program, in another namespace and under another name than the lives before and
// after it, with the values of the older chart and with today's; and rolls it back. No forbidden write passes meanwhile. Some fail,
// because the older program serves another path.
func upgradeOlder(t *testing.T, n *node.Node) {
	t.Helper()
	sources := t.TempDir()
	unpackCommit(t, olderCommit, sources)
	buildImageOf(t, n, sources, olderTag, "v0.0.1-e2e")
	const elsewhere = "older-guard"
	helm := func(command string, further ...string) {
		t.Helper()
		run(t, n, "helm", slices.Concat([]string{command, elsewhere, "--namespace", elsewhere, "--wait", "--timeout", "4m"}, further)...)
	}
	of := func(chart, tag string) []string {
		return []string{chart, "--set", "image.repository=" + image, "--set-string", "image.tag=" + tag, "--set", "image.pullPolicy=Never"}
	}
	run(t, n, "kubectl", "create", "namespace", elsewhere)
	// Its release owns the definition, and cannot take one over.
	run(t, n, "kubectl", "delete", "--ignore-not-found", "crd/auditrecords.guardian.apigw.io", "crd/reservations.guardian.apigw.io", "crd/unlocks.guardian.apigw.io")
	helm("install", of(filepath.Join(sources, "charts", "apigw-guardian"), olderTag)...)
	for _, step := range [][]string{
		append([]string{"upgrade", "--reuse-values"}, of(chart, tag)...),
		{"rollback", "1", "--force-conflicts"}, // the guard has applied the definition since
		append([]string{"upgrade", "--reset-then-reuse-values"}, of(chart, tag)...),
	} {
		l := startLoad(t, n)
		helm(step[0], step[1:]...)
		l.end(t)
		t.Logf("%s: %s, such as %v", step[:2], l, l.failure)
		awaitDenial(t, n) // an older leader may still have to register its path
	}
	helm("uninstall")
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// The leaf lives a minute and is renewed after half of it.
const certificates = `
apiVersion: v1
kind: Namespace
metadata: {name: issued}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {namespace: issued, name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {namespace: issued, name: authority}
spec:
  isCA: true
  commonName: issued authority
  secretName: authority
  duration: 24h
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {kind: Issuer, name: self}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {namespace: issued, name: authority}
spec: {ca: {secretName: authority}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {namespace: issued, name: serving, labels: {app.kubernetes.io/name: apigw-guardian}}
spec:
  secretName: serving
  ipAddresses: [127.0.0.1]
  usages: [server auth, digital signature]
  duration: 60s
  renewBefore: 30s
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {kind: Issuer, name: authority}
`

// cmd runs a command to its end, which must be a good one.
func cmd(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir, command.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// applyFile applies manifests as the admin.
func applyFile(t *testing.T, path string) {
	t.Helper()
	if _, _, err := shared.cluster.Kubectl(t.Context(), "apply", "--server-side", "-f", path); err != nil {
		t.Fatal(err)
	}
}

// startCertManager runs cert-manager's controllers until the test ends.
func startCertManager(t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "certmanager")
	cmd(t, "../certmanager", "go", "build", "-ldflags=-s -w", "-o", program, ".")
	process, err := shared.cluster.StartProgram(t.Context(), testbed.Program{
		Name: "certmanager", Path: program, Env: []string{"KUBECONFIG=" + shared.cluster.Kubeconfig()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
}

// issued is the data of the serving certificate's Secret; nil where there is none, or nothing in it yet.
func issued(ctx context.Context, t *testing.T) map[string][]byte {
	t.Helper()
	secret, err := clients(t).CoreV1().Secrets("issued").Get(ctx, "serving", metav1.GetOptions{})
	if err != nil || len(secret.Data["tls.crt"]) == 0 {
		return nil
	}
	return secret.Data
}

// startKubelet mounts the Secret into the folder, and follows it until the test ends. Like kubelet, it leaves the files of a
// Secret that is gone.
func startKubelet(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() {
		var mounted []byte
		for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
			data := issued(context.WithoutCancel(ctx), t)
			if data != nil && !bytes.Equal(data["tls.crt"], mounted) {
				mount(t, dir, data)
				mounted = data["tls.crt"]
			}
		}
	})
}

func deleteIssued(t *testing.T, name string) {
	t.Helper()
	err := clients(t).CoreV1().Secrets("issued").Delete(t.Context(), name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// cert-manager issues, renews, issues again after its Secret is deleted, and goes over to another authority, and no call notices.
func TestCertManagerIssuesTheGuardsCertificate(t *testing.T) {
	world := newWorld(t)
	applyFile(t, filepath.Join(cmd(t, "../certmanager", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager"), "deploy", "crds"))
	manifests := filepath.Join(t.TempDir(), "certificates.yaml")
	if err := os.WriteFile(manifests, []byte(certificates), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API server knows Certificates", func() bool {
		_, err := clients(t).Discovery().ServerResourcesForGroupVersion("cert-manager.io/v1")
		return err == nil
	})
	applyFile(t, manifests)
	for _, command := range []string{"status", "preflight"} {
		if _, output := run(t, command); !strings.Contains(output, "Certificate issued/serving is not ready: cert-manager has not looked at it") {
			t.Errorf("without cert-manager, %s says:\n%s", command, output)
		}
	}
	startCertManager(t)
	eventually(t, "the certificate is issued", func() bool { return issued(t.Context(), t) != nil })
	dir := t.TempDir()
	startKubelet(t, dir)
	eventually(t, "the certificate is mounted", func() bool { _, err := os.Stat(filepath.Join(dir, "tls.crt")); return err == nil })
	guard := launch(t, "--certs=files", "--cert-dir="+dir)
	awaitReady(t, guard)
	awaitDenial(t, world)
	eventually(t, "preflight finds the certificate", func() bool {
		_, output := run(t, "preflight")
		return strings.Contains(output, "cert-manager has issued the guard's certificate")
	})

	before := failedCalls(t)
	flow := startLoad(t, world)
	for _, change := range []struct {
		what string
		do   func()
	}{
		{"the certificate is renewed", func() {}},
		{"the certificate is issued again", func() { deleteIssued(t, "serving") }},
		{"the certificate is another authority's", func() { deleteIssued(t, "authority") }},
	} {
		was := issued(t.Context(), t)
		change.do()
		eventually(t, change.what, func() bool {
			is := issued(t.Context(), t)
			sameAuthority := bytes.Equal(is["ca.crt"], was["ca.crt"])
			return is != nil && !bytes.Equal(is["tls.crt"], was["tls.crt"]) && (sameAuthority != (change.what == "the certificate is another authority's"))
		})
		requireServed(t, guard, change.what)
	}
	flow.require(t, before)
}

// requireServed waits until the guard serves what is in the Secret.
func requireServed(t *testing.T, guard *testbed.Guard, when string) {
	t.Helper()
	eventually(t, when+", and served", func() bool {
		leaf, err := handshake(guard, poolOf(issued(t.Context(), t)["ca.crt"]))
		return err == nil && bytes.Contains(issued(t.Context(), t)["tls.crt"], encoded(leaf))
	})
}

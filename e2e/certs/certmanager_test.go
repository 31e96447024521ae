// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const certManagerModule = "github.com/cert-manager/cert-manager"

// certificates returns the manifests. The serving certificate is renewed after half of its lifetime.
func certificates(lifetime time.Duration) string {
	return fmt.Sprintf(`
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
  duration: %s
  renewBefore: %s
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {kind: Issuer, name: authority}
`, lifetime, lifetime/2)
}

// applyFile applies manifests as the administrator.
func applyFile(t *testing.T, world *scenario.World, path string) {
	t.Helper()
	if _, _, err := world.Cluster.Kubectl(t.Context(), "apply", "--server-side", "-f", path); err != nil {
		t.Fatal(err)
	}
}

// startCertManager runs cert-manager's controllers until the test ends.
func startCertManager(t *testing.T, world *scenario.World) {
	t.Helper()
	program := harness.BuildModule(t, "../certmanager", certManagerModule)
	process, err := world.Cluster.StartProgram(t.Context(), testbed.Program{
		Name: "certmanager", Path: program, Env: []string{"KUBECONFIG=" + world.Cluster.Kubeconfig()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Stop)
}

// issued returns the data of a Secret that cert-manager writes; nil if there is none yet.
func issued(ctx context.Context, t *testing.T, name string) map[string][]byte {
	t.Helper()
	secret, err := harness.Clients(t).CoreV1().Secrets("issued").Get(ctx, name, metav1.GetOptions{})
	if err != nil || len(secret.Data["tls.crt"]) == 0 {
		return nil
	}
	return secret.Data
}

// startKubelet mounts the serving Secret until the test ends. Like kubelet, it keeps the files of a deleted Secret.
func startKubelet(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() {
		var mounted []byte
		for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
			data := issued(context.WithoutCancel(ctx), t, "serving")
			if data != nil && !bytes.Equal(data["tls.crt"], mounted) {
				mount(t, dir, data)
				mounted = data["tls.crt"]
			}
		}
	})
}

func deleteIssued(t *testing.T, name string) {
	t.Helper()
	err := harness.Clients(t).CoreV1().Secrets("issued").Delete(t.Context(), name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// cert-manager issues the certificate, renews it, issues it again after its Secret was deleted, and changes its CA. No call fails.
func TestCertManagerIssuesTheGuardsCertificate(t *testing.T) {
	world := newWorld(t)
	applyFile(t, world, filepath.Join(harness.ModuleDir(t, "../certmanager", certManagerModule), "deploy", "crds"))
	manifests := filepath.Join(t.TempDir(), "certificates.yaml")
	if err := os.WriteFile(manifests, []byte(certificates(harness.Full(time.Minute, 30*time.Second))), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the API server knows Certificates", func() (bool, any) {
		_, err := harness.Clients(t).Discovery().ServerResourcesForGroupVersion("cert-manager.io/v1")
		return err == nil, err
	})
	applyFile(t, world, manifests)
	t.Cleanup(func() { // preflight and status of other tests read it
		_, _, _ = world.Cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "certificate", "--namespace=issued", "--all")
	})
	for _, command := range []string{"status", "preflight"} {
		if output := harness.Run(t, command).Output(); !strings.Contains(output, "Certificate issued/serving is not ready: cert-manager has not looked at it") {
			t.Errorf("without cert-manager, %s says:\n%s", command, output)
		}
	}
	startCertManager(t, world)
	harness.Eventually(t, "the certificate is issued", func() (bool, any) {
		return issued(t.Context(), t, "serving") != nil, "no Secret"
	})
	dir := t.TempDir()
	startKubelet(t, dir)
	harness.Eventually(t, "the certificate is mounted", func() (bool, any) {
		_, err := os.Stat(filepath.Join(dir, "tls.crt"))
		return err == nil, err
	})
	guard := harness.LaunchGuard(t, "--certs=files", "--cert-dir="+dir)
	harness.AwaitReady(t, guard)
	awaitDenial(t, world)
	harness.Eventually(t, "preflight finds the certificate", func() (bool, any) {
		output := harness.Run(t, "preflight").Output()
		return strings.Contains(output, "cert-manager has issued the guard's certificate"), output
	})

	before := failedCalls(t)
	flow := startLoad(t, world)
	for _, change := range []struct {
		what   string
		do     func()
		keepCA bool
	}{
		{"the certificate is renewed", func() {}, true},
		{"the certificate is issued again", func() { deleteIssued(t, "serving") }, true},
		{"the certificate is of another CA", func() { replaceCA(t) }, false},
	} {
		was := issued(t.Context(), t, "serving")
		change.do()
		harness.Eventually(t, change.what, func() (bool, any) {
			is := issued(t.Context(), t, "serving")
			return is != nil && !bytes.Equal(is["tls.crt"], was["tls.crt"]) && bytes.Equal(is["ca.crt"], was["ca.crt"]) == change.keepCA, string(is["tls.crt"])
		})
		requireServed(t, guard, change.what)
	}
	flow.require(t, before)
}

// replaceCA makes cert-manager issue another CA. Without E2E_FULL=1, it does not leave the serving certificate to its next renewal:
// then too little of a short lifetime would be left for the new CA to propagate.
func replaceCA(t *testing.T) {
	t.Helper()
	was := issued(t.Context(), t, "authority")
	deleteIssued(t, "authority")
	if harness.Full(true, false) {
		return
	}
	harness.Eventually(t, "the CA is issued again", func() (bool, any) {
		is := issued(t.Context(), t, "authority")
		return is != nil && !bytes.Equal(is["tls.crt"], was["tls.crt"]), string(is["tls.crt"])
	})
	deleteIssued(t, "serving")
}

// requireServed waits until the guard serves the certificate of the Secret.
func requireServed(t *testing.T, guard *testbed.Guard, when string) {
	t.Helper()
	harness.Eventually(t, when+", and served", func() (bool, any) {
		leaf, err := handshake(guard, poolOf(issued(t.Context(), t, "serving")["ca.crt"]))
		return err == nil && bytes.Contains(issued(t.Context(), t, "serving")["tls.crt"], encoded(leaf)), err
	})
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// presentTo restarts the API server with a client certificate for the webhooks of a host.
func presentTo(t *testing.T, world *scenario.World, host string, files map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig := write("webhooks.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
users:
- name: %q
  user: {client-certificate: %s/tls.crt, client-key: %s/tls.key}
`, host, dir, dir))
	configuration := write("admission.yaml", fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: %s
`, kubeconfig))
	if err := world.Cluster.StartAPIServer(t.Context(), "--admission-control-config-file="+configuration); err != nil {
		t.Fatal(err)
	}
}

// A guard with a client CA answers API servers with a certificate of it, and refuses all other callers at the handshake. It reads a
// changed client CA without a restart.
func TestOnlyVerifiedCallersAreAnswered(t *testing.T) {
	world := newWorld(t)
	ours, others := newIssuer(t), newIssuer(t)
	file := filepath.Join(t.TempDir(), "clients.crt")
	trust := func(ca issuer) {
		t.Helper()
		if err := os.WriteFile(file, ca.issue(t, time.Now(), time.Hour)["ca.crt"], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(ours)
	guard := harness.LaunchGuard(t, "--client-ca="+file)
	harness.AwaitReady(t, guard)
	host := strings.TrimPrefix(guard.URL(), "https://")
	t.Cleanup(func() {
		if err := world.Cluster.StartAPIServer(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})

	harness.Eventually(t, "the guard reports that an API server without a certificate fails to call it", func() (bool, any) {
		problem := annotation(t, guardian.ReachabilityProblemAnnotation)
		return strings.Contains(problem, "failed calling webhook"), problem
	})
	presentTo(t, world, host, ours.issue(t, time.Now().Add(-time.Minute), time.Hour))
	awaitDenial(t, world)
	for name, files := range map[string]map[string][]byte{
		"no certificate": nil, "a certificate of another CA": others.issue(t, time.Now().Add(-time.Minute), time.Hour),
		"an expired certificate": ours.issue(t, time.Now().Add(-time.Hour), time.Minute),
	} {
		if err := post(guard.URL(), files); err == nil {
			t.Errorf("a caller with %s was answered", name)
		}
	}
	if err := post(guard.URL(), ours.issue(t, time.Now().Add(-time.Minute), time.Hour)); err != nil {
		t.Errorf("a caller with a certificate: %v", err)
	}
	trust(others)
	harness.Eventually(t, "the guard reads the other CA", func() (bool, any) {
		err := post(guard.URL(), others.issue(t, time.Now().Add(-time.Minute), time.Hour))
		return err == nil, err
	})
	if err := post(guard.URL(), ours.issue(t, time.Now().Add(-time.Minute), time.Hour)); err == nil {
		t.Error("a caller of the earlier CA was answered")
	}
}

func annotation(t *testing.T, name string) string {
	t.Helper()
	live, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return live.Annotations[name]
}

// post sends something that is no review, and accepts any answer.
func post(url string, files map[string][]byte) error {
	config := &tls.Config{InsecureSkipVerify: true} // the test is about the client certificate
	if files != nil {
		pair, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
		if err != nil {
			return err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Post(url, "text/plain", strings.NewReader("?"))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

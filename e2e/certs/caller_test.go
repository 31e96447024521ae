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
)

// presentTo makes the API server present a client certificate to the webhooks of a host, and restarts it for that. Without
// files it presents none.
func presentTo(t *testing.T, host string, files map[string][]byte) {
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
	if err := shared.cluster.StartAPIServer(t.Context(), "--admission-control-config-file="+configuration); err != nil {
		t.Fatal(err)
	}
}

// A guard with a client CA answers an API server that presents a certificate of it, and refuses everybody else at the
// handshake; its authorities change without a restart.
func TestOnlyVerifiedCallersAreAnswered(t *testing.T) {
	world := newWorld(t)
	ours, strangers := newIssuer(t), newIssuer(t)
	file := filepath.Join(t.TempDir(), "clients.crt")
	trust := func(authority issuer) {
		t.Helper()
		if err := os.WriteFile(file, authority.issue(t, time.Now(), time.Hour)["ca.crt"], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(ours)
	guard := launch(t, "--client-ca="+file)
	awaitReady(t, guard)
	host := strings.TrimPrefix(guard.URL(), "https://")
	t.Cleanup(func() {
		if err := shared.cluster.StartAPIServer(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})

	eventually(t, "an API server without a certificate fails to call the guard", func() bool {
		_, got := denied(t.Context(), world)
		return strings.Contains(got, "failed calling webhook")
	})
	presentTo(t, host, ours.issue(t, time.Now().Add(-time.Minute), time.Hour))
	awaitDenial(t, world)
	for name, files := range map[string]map[string][]byte{
		"no certificate": nil, "a stranger's certificate": strangers.issue(t, time.Now().Add(-time.Minute), time.Hour),
		"an expired certificate": ours.issue(t, time.Now().Add(-time.Hour), time.Minute),
	} {
		if err := post(guard.URL(), files); err == nil {
			t.Errorf("a caller with %s was answered", name)
		}
	}
	if err := post(guard.URL(), ours.issue(t, time.Now().Add(-time.Minute), time.Hour)); err != nil {
		t.Errorf("a caller with a certificate: %v", err)
	}
	trust(strangers)
	eventually(t, "the other authority counts", func() bool {
		return post(guard.URL(), strangers.issue(t, time.Now().Add(-time.Minute), time.Hour)) == nil
	})
	if err := post(guard.URL(), ours.issue(t, time.Now().Add(-time.Minute), time.Hour)); err == nil {
		t.Error("a caller of the authority before was answered")
	}
}

// post sends something that is no review, and wants any answer.
func post(url string, files map[string][]byte) error {
	config := &tls.Config{InsecureSkipVerify: true} // the question is whom the guard answers
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

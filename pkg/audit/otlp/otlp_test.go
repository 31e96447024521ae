// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"compress/gzip"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorv1 "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
)

func record(uid string, outcome v1alpha1.Outcome) v1alpha1.AuditRecord {
	return v1alpha1.AuditRecord{
		ObjectMeta: metav1.ObjectMeta{Name: "name-" + uid, UID: "uid-1"},
		Spec: v1alpha1.AuditRecordSpec{
			Outcome: outcome, Operation: "DELETE", Resource: "secrets/kube-system/x", Reason: "ReservedDelete", Message: "must not be deleted",
			User: v1alpha1.User{Name: "jane", Groups: []string{"a", "b"}}, Count: 3,
			FirstTime: metav1.NewMicroTime(time.Unix(100, 0)), LastTime: metav1.NewMicroTime(time.Unix(200, 5000)),
		},
	}
}

// received decodes what a receiver was sent.
func received(t *testing.T, request *http.Request) *collectorv1.ExportLogsServiceRequest {
	t.Helper()
	reader, err := gzip.NewReader(request.Body)
	if err != nil {
		t.Error(err)
		return nil
	}
	content, err := io.ReadAll(reader)
	message := &collectorv1.ExportLogsServiceRequest{}
	if err = errors.Join(err, proto.Unmarshal(content, message)); err != nil {
		t.Error(err)
	}
	return message
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestARecordIsALog(t *testing.T) {
	var got *collectorv1.ExportLogsServiceRequest
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = received(t, r) }))
	defer server.Close()
	e, err := New(Options{Endpoint: server.URL, Origin: export.Origin{Version: "v1", Cluster: "prod"}})
	if err != nil {
		t.Fatal(err)
	}
	records := []v1alpha1.AuditRecord{record("a", v1alpha1.Denied), record("b", v1alpha1.Unlocked)}
	if rejected, err := e.Export(t.Context(), records); err != nil || rejected != 0 {
		t.Fatalf("%d rejected, %v", rejected, err)
	}
	resource := map[string]string{}
	for _, a := range got.GetResourceLogs()[0].GetResource().GetAttributes() {
		resource[a.GetKey()] = a.GetValue().GetStringValue()
	}
	want := map[string]string{"service.name": "apigw-guardian", "service.version": "v1", "k8s.cluster.name": "prod"}
	if diff := cmp.Diff(want, resource); diff != "" {
		t.Errorf("resource: -want +got\n%s", diff)
	}
	logs := got.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()
	if len(logs) != 2 || logs[0].GetSeverityNumber() != 13 || logs[1].GetSeverityNumber() != 9 {
		t.Fatalf("got %v", logs)
	}
	attributes := map[string]string{}
	for _, a := range logs[0].GetAttributes() {
		attributes[a.GetKey()] = a.GetValue().GetStringValue()
	}
	want = map[string]string{
		"log.record.uid": "uid-1.3", "user.name": "jane", "guardian.name": "name-a", "guardian.outcome": "Denied", "guardian.operation": "DELETE",
		"guardian.resource": "secrets/kube-system/x", "guardian.reason": "ReservedDelete", "guardian.message": "must not be deleted",
		"guardian.user": "jane", "guardian.groups": "a b", "guardian.count": "3",
		"guardian.firstTime": "1970-01-01T00:01:40.000000Z", "guardian.lastTime": "1970-01-01T00:03:20.000005Z",
	}
	if diff := cmp.Diff(want, attributes); diff != "" {
		t.Errorf("attributes: -want +got\n%s", diff)
	}
	if logs[0].GetTimeUnixNano() != 200_000_005_000 || logs[0].GetBody().GetStringValue() != "must not be deleted" ||
		logs[0].GetEventName() != "io.apigw.guardian.audit.denied" || logs[0].GetObservedTimeUnixNano() == 0 {
		t.Errorf("got %v", logs[0])
	}
}

func TestHeadersAndCertificatesComeFromFiles(t *testing.T) {
	var token string
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { token = r.Header.Get("X-Token") }))
	defer server.Close()
	dir := t.TempDir()
	send := func() error {
		e, err := New(Options{Endpoint: server.URL, Dir: dir})
		if err != nil {
			return err
		}
		_, err = e.Export(t.Context(), []v1alpha1.AuditRecord{record("a", v1alpha1.Denied)})
		return err
	}
	var unknown x509.UnknownAuthorityError
	if err := send(); !errors.As(err, &unknown) {
		t.Errorf("without the CA: got %v", err)
	}
	write(t, dir, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	write(t, dir, headersFile, "X-Token: secret\n\n")
	if err := send(); err != nil || token != "secret" {
		t.Errorf("got %v, token %q", err, token)
	}
	for name, content := range map[string]string{headersFile: "no header", caFile: "no certificate", certFile: "no certificate"} {
		write(t, dir, name, content)
		if err := send(); err == nil {
			t.Errorf("%s: %q is accepted", name, content)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhichAnswersAreRepeated(t *testing.T) {
	partial, err := proto.Marshal(&collectorv1.ExportLogsServiceResponse{
		PartialSuccess: &collectorv1.ExportLogsPartialSuccess{RejectedLogRecords: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		code     int
		body     string
		rejected int64
		refused  bool
		fails    bool
	}{
		"taken":                     {code: 200},
		"taken, with a text":        {code: 200, body: "ok"},
		"taken in part":             {code: 200, body: string(partial), rejected: 1},
		"bad data":                  {code: 400, fails: true, refused: true},
		"too much data":             {code: 413, fails: true, refused: true},
		"a credential that expired": {code: 401, fails: true},
		"another path":              {code: 404, fails: true},
		"too many requests":         {code: 429, fails: true},
		"a redirect":                {code: 307, fails: true},
		"away":                      {code: 503, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls++
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(test.code)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			e, err := New(Options{Endpoint: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			rejected, err := e.Export(t.Context(), []v1alpha1.AuditRecord{record("a", v1alpha1.Denied)})
			if rejected != test.rejected || (err != nil) != test.fails || errors.Is(err, ErrRefused) != test.refused || calls != 1 {
				t.Errorf("%d rejected, %v, %d calls", rejected, err, calls)
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	for given, want := range map[string]string{
		"https://logs.example.com":              "https://logs.example.com/v1/logs",
		"http://collector:4318/":                "http://collector:4318/v1/logs",
		"https://logs.example.com/otlp/v1/logs": "https://logs.example.com/otlp/v1/logs",
		"collector:4318":                        "",
		"ftp://collector":                       "",
		"https://user:secret@collector":         "",
		"https://":                              "",
		"":                                      "",
	} {
		if got, err := Endpoint(given); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
	}
}

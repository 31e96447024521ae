// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package shop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// APIServer is as much of an API server as dry-runs need: it serves the manifests, and answers every write by the verdict.
// A write that would be stored fails the test.
type APIServer struct {
	t       *testing.T
	Objects map[string]string // by path
	// status, and message, answer each write to a path.
	Answer func(path string) (int, string)
	// Refuses, if any, tells what RBAC does not let the caller do: a method and a path.
	Refuses func(method, path string) bool

	// Replica signs denials, unless it is nil; an impostor's key is not published.
	Replica *probe.Replica

	mu             sync.Mutex
	Writes, Bodies []string
}

// prove returns what a replica adds to its denial of a write whose body carries a nonce.
func (s *APIServer) prove(r *http.Request, body []byte) string {
	_, value, found := strings.Cut(strings.ReplaceAll(string(body), "~1", "/"), guardian.ProbeAnnotation+`"`)
	if nonce := nonceInBody.FindString(value); s.Replica != nil && found && nonce != "" {
		subject := probe.Subject{Nonce: nonce, Operation: "UPDATE"}
		if r.Method == http.MethodPost {
			subject.Operation = "CREATE"
		}
		parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/apis/"), "/api/v1/"), "/")
		if parts[0] == "namespaces" {
			subject.Namespace, subject.Resource = parts[1], parts[2]
		} else {
			subject.Resource = parts[2] + "." + parts[0]
		}
		return "\n" + s.Replica.Sign(subject)
	}
	return ""
}

var nonceInBody = regexp.MustCompile("[0-9a-f]{32}")

func (s *APIServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if s.Refuses != nil && s.Refuses(r.Method, r.URL.Path) {
		writeFailure(w, http.StatusForbidden, `things "x" is forbidden: User "eve" cannot do that at the cluster scope`)
		return
	}
	if r.Method == http.MethodGet {
		s.read(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.Writes = append(s.Writes, r.Method+" "+r.URL.Path)
	s.Bodies = append(s.Bodies, string(body))
	s.mu.Unlock()
	if !isDryRun(r, body) {
		s.t.Errorf("%s %s would be stored", r.Method, r.URL)
	}
	code, message := s.Answer(r.URL.Path)
	message += s.prove(r, body)
	if code < http.StatusBadRequest {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Anything","metadata":{}}`))
		return
	}
	writeFailure(w, code, message)
}

func writeFailure(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, "reason": "Forbidden",
	})
}

// RoundTrip answers without a network, so that the server works in a synctest bubble.
func (s *APIServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response, r.Context().Err()
}

func (s *APIServer) read(w http.ResponseWriter, r *http.Request) {
	if object, found := s.Objects[r.URL.Path]; found {
		_, _ = io.WriteString(w, object)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
}

// isDryRun reads where each verb carries it: a delete in its body, all others in the query.
func isDryRun(r *http.Request, body []byte) bool {
	if r.Method != http.MethodDelete {
		return slices.Equal(r.URL.Query()["dryRun"], []string{"All"})
	}
	var options struct {
		DryRun []string `json:"dryRun"`
	}
	return json.Unmarshal(body, &options) == nil && slices.Equal(options.DryRun, []string{"All"})
}

func pathOf(entry *reserved.Resource, name string) string {
	path := "/apis/" + entry.GVR.GroupVersion().String()
	if entry.GVR.Group == "" {
		path = "/api/" + entry.GVR.Version
	}
	if entry.Namespace != "" {
		path += "/namespaces/" + entry.Namespace
	}
	return path + "/" + entry.GVR.Resource + "/" + name
}

// WebhookConfigurationPath is the path of the webhook configuration.
const WebhookConfigurationPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + guardian.WebhookConfiguration

// Serve starts an API server that holds every manifest of the set, and a registration.
func Serve(t *testing.T, set *reserved.Set) (*APIServer, *rest.Config) {
	t.Helper()
	replica := probe.NewReplica(time.Now())
	s := &APIServer{t: t, Replica: replica, Objects: map[string]string{
		"/version": `{"gitVersion":"v1.37.2"}`,
		WebhookConfigurationPath: fmt.Sprintf(`{"metadata":{"name":"x","annotations":{%q:%q}}}`,
			replica.KeyAnnotation(), replica.Publication()),
		"/api/v1/namespaces/kube-system/secrets": `{"kind":"SecretList","apiVersion":"v1","items":[]}`,
	}}
	s.Answer = Deny
	for _, entry := range set.Resources() {
		if entry.HasManifest() {
			s.Objects[pathOf(entry, entry.Name)] = string(entry.Manifest())
		}
	}
	return s, &rest.Config{Host: "http://shop", Transport: s}
}

// Deny denies all but creates of what the shop does not reserve, which are told by their path alone.
func Deny(path string) (int, string) {
	if strings.HasSuffix(path, "/configmaps") {
		return http.StatusCreated, ""
	}
	return http.StatusForbidden, `admission webhook "all.apigw-guardian.io" denied the request: it is reserved`
}

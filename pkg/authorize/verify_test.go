// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// apiServer is as much of an API server as dry-runs need: it serves the manifests, and answers every write by the verdict.
// A write that would be stored fails the test.
type apiServer struct {
	t       *testing.T
	objects map[string]string // by path
	// status, and message, answer each write to a path.
	answer func(path string) (int, string)
	// refuses, if any, tells what RBAC does not let the caller do: a method and a path.
	refuses func(method, path string) bool

	// replica signs denials, unless it is nil; an impostor's key is not published.
	replica *probe.Replica

	mu             sync.Mutex
	writes, bodies []string
}

// prove returns what a replica adds to its denial of a write whose body carries a nonce.
func (s *apiServer) prove(r *http.Request, body []byte) string {
	_, value, found := strings.Cut(strings.ReplaceAll(string(body), "~1", "/"), guardian.ProbeAnnotation+`"`)
	if nonce := nonceInBody.FindString(value); s.replica != nil && found && nonce != "" {
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
		return "\n" + s.replica.Sign(subject)
	}
	return ""
}

var nonceInBody = regexp.MustCompile("[0-9a-f]{32}")

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if s.refuses != nil && s.refuses(r.Method, r.URL.Path) {
		writeFailure(w, http.StatusForbidden, `things "x" is forbidden: User "eve" cannot do that at the cluster scope`)
		return
	}
	if r.Method == http.MethodGet {
		s.read(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.writes = append(s.writes, r.Method+" "+r.URL.Path)
	s.bodies = append(s.bodies, string(body))
	s.mu.Unlock()
	if !isDryRun(r, body) {
		s.t.Errorf("%s %s would be stored", r.Method, r.URL)
	}
	code, message := s.answer(r.URL.Path)
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

func (s *apiServer) read(w http.ResponseWriter, r *http.Request) {
	if object, found := s.objects[r.URL.Path]; found {
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

const webhookConfiguration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + guardian.WebhookConfiguration

// serve starts an API server that holds every manifest of the set, and a registration.
func serve(t *testing.T, set *reserved.Set) (*apiServer, *Authorizer) {
	t.Helper()
	replica := probe.NewReplica(time.Now())
	s := &apiServer{t: t, replica: replica, objects: map[string]string{
		"/version":                               `{"gitVersion":"v1.37.2"}`,
		webhookConfiguration:                     fmt.Sprintf(`{"metadata":{"name":"x","annotations":{%q:%q}}}`, replica.KeyAnnotation(), replica.Publication()),
		"/api/v1/namespaces/kube-system/secrets": `{"kind":"SecretList","apiVersion":"v1","items":[]}`,
	}}
	s.answer = deny
	for _, entry := range set.Resources() {
		if entry.HasManifest() {
			s.objects[pathOf(entry, entry.Name)] = string(entry.Manifest())
		}
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	cluster, err := Connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(set, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return s, a
}

// deny denies all but creates of what the shop does not reserve, which are told by their path alone.
func deny(path string) (int, string) {
	if strings.HasSuffix(path, "/configmaps") {
		return http.StatusCreated, ""
	}
	return http.StatusForbidden, `admission webhook "all.apigw-guardian.io" denied the request: it is reserved`
}

func TestVerifyTriesEveryWriteAsADryRun(t *testing.T) {
	server, a := serve(t, setOf(t, shop))
	rows, err := a.Verify(t.Context(), EveryWrite)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, row := range rows {
		counts[row.Write]++
		isUnrelated := strings.Contains(row.Write, " an unrelated ")
		if !isUnrelated && (!row.OK || row.Got != denied) {
			t.Errorf("got %+v", row)
		}
	}
	want := map[string]int{
		"create": 4, "put": 4, "json patch": 4, "merge patch": 4, "strategic merge patch": 4, "server-side apply": 4,
		"delete (background)": 4, "delete (foreground)": 4, "delete (orphan)": 4, "deletecollection": 4,
		"create under the prefix": 1, "create by generateName under the prefix": 1, "mint a token under another name": 1,
		"create an unrelated Secret": 1, "create an unrelated ConfigMap": 1, "create an unrelated ClusterRole": 1,
		"apply an unrelated ClusterRole": 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(server.writes) != len(rows) {
		t.Errorf("%d rows and %d writes", len(rows), len(server.writes))
	}
}

// mayOnly is RBAC that lets a caller do what is listed by method and path, and read what has a version.
func mayOnly(permitted ...string) func(method, path string) bool {
	return func(method, path string) bool {
		return path != "/version" && !slices.Contains(permitted, method+" "+path)
	}
}

func TestVerifyPermittedWrites(t *testing.T) {
	const (
		account = "/api/v1/namespaces/kube-system/serviceaccounts/clerk"
		role    = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selling"
		binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/clerk-sells"
		secret  = "/api/v1/namespaces/kube-system/secrets/clerk-token-own"
		other   = "/apis/rbac.authorization.k8s.io/v1/clusterroles/" + unrelatedName
	)
	enough := []string{
		"GET " + account, "PATCH " + account, "DELETE " + account, "GET " + role, "PUT " + role, "GET " + binding, "DELETE " + binding,
		"DELETE " + secret, "PATCH " + other,
	}
	passOther := func(path string) (int, string) {
		if path == other {
			return http.StatusOK, ""
		}
		return deny(path)
	}
	tests := map[string]struct {
		permitted []string
		answer    func(string) (int, string)
		scope     Scope
		want      map[string]int // rows by what came of them
		wrong     []string
	}{
		"each resource was denied once": {
			permitted: enough, answer: passOther, scope: PermittedWrites,
			want: map[string]int{"denied": 14, "allowed": 1, "left out": 33},
		},
		"a resource of which nothing may be tried": {
			permitted: slices.DeleteFunc(slices.Clone(enough), func(s string) bool { return s == "DELETE "+secret }),
			answer:    passOther, scope: PermittedWrites,
			want:  map[string]int{"denied": 11, "allowed": 1, "left out": 36, "failed": 1},
			wrong: []string{"secrets/kube-system/clerk-token-*, any of these"},
		},
		"a guard that does not deny": {
			permitted: []string{"DELETE " + secret, "PATCH " + other},
			answer:    func(string) (int, string) { return http.StatusOK, "" }, scope: PermittedWrites,
			want: map[string]int{"allowed": 4, "left out": 44, "failed": 3},
			wrong: []string{
				"clusterrolebindings.rbac.authorization.k8s.io/clerk-sells, any of these",
				"clusterroles.rbac.authorization.k8s.io/selling, any of these",
				"secrets/kube-system/clerk-token-*, delete (background)", "secrets/kube-system/clerk-token-*, delete (foreground)",
				"secrets/kube-system/clerk-token-*, delete (orphan)", "serviceaccounts/kube-system/clerk, any of these",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, a := serve(t, setOf(t, shop))
			server.answer, server.refuses = test.answer, mayOnly(test.permitted...)
			rows, err := a.Verify(t.Context(), test.scope)
			if err != nil {
				t.Fatal(err)
			}
			got, wrong := map[string]int{}, []string(nil)
			for _, row := range rows {
				what, _, _ := strings.Cut(row.Got, ":")
				got[what]++
				if row.LeftOut != (row.Got == leftOut) {
					t.Errorf("got %+v", row)
				}
				if !row.OK && !row.LeftOut {
					wrong = append(wrong, row.Resource+", "+row.Write)
				}
			}
			slices.Sort(wrong)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.wrong, wrong); diff != "" {
				t.Errorf("wrong: -want +got:\n%s", diff)
			}
		})
	}
}

// Without the scope that asks for it, nothing is left out: a refusal by RBAC is no denial.
func TestVerifyEveryWriteTakesARefusalForAFailure(t *testing.T) {
	server, a := serve(t, setOf(t, shop))
	server.refuses = func(method, _ string) bool { return method == http.MethodDelete }
	rows, err := a.Verify(t.Context(), EveryWrite)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		isDelete := strings.HasPrefix(row.Write, "delete")
		if row.LeftOut || isDelete && !strings.HasPrefix(row.Got, "failed: refused, but not by the guard") {
			t.Errorf("got %+v", row)
		}
	}
}

// An impostor that denies all dry-runs fails every write that can carry a nonce, also where RBAC leaves most writes out.
func TestVerifyWantsAProof(t *testing.T) {
	const account = "/api/v1/namespaces/kube-system/serviceaccounts/clerk"
	tests := map[string]struct {
		scope   Scope
		refuses func(method, path string) bool
		change  func(*apiServer)
		wrong   int
	}{
		"every write": {scope: EveryWrite, change: func(s *apiServer) { s.replica = nil }, wrong: 4*6 + 1},
		"every write, of a guard of an earlier version": {
			scope: EveryWrite, wrong: 4*6 + 1,
			change: func(s *apiServer) { s.replica, s.objects[webhookConfiguration] = nil, `{"metadata":{"name":"x"}}` },
		},
		"every write, and the keys may not be read": {
			scope: EveryWrite, wrong: 4*6 + 1, change: func(*apiServer) {},
			refuses: func(_, path string) bool { return path == webhookConfiguration },
		},
		"permitted writes": {scope: PermittedWrites, change: func(s *apiServer) { s.replica = nil }, wrong: 4*6 + 1},
		"permitted writes, and the keys may not be read": {
			scope: PermittedWrites, change: func(s *apiServer) { s.replica = nil },
			refuses: func(_, path string) bool { return path == webhookConfiguration },
		},
		"permitted writes of which one carries a nonce": {
			scope: PermittedWrites, change: func(s *apiServer) { s.replica = nil }, wrong: 4 + 3,
			refuses: mayOnly("GET "+webhookConfiguration, "GET "+account, "PATCH "+account),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, a := serve(t, setOf(t, shop))
			server.refuses = test.refuses
			test.change(server)
			rows, err := a.Verify(t.Context(), test.scope)
			if err != nil {
				t.Fatal(err)
			}
			wrong := 0
			for _, row := range rows {
				if !row.OK && !row.LeftOut && !strings.Contains(row.Write, " an unrelated ") {
					wrong++
				}
			}
			if wrong != test.wrong {
				t.Errorf("%d rows are wrong, want %d: %+v", wrong, test.wrong, rows)
			}
		})
	}
}

func TestVerifyWithoutResources(t *testing.T) {
	const vault = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: vault}
spec:
  owner: Vault
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: vault, name: keeper}}
`
	server, a := serve(t, setOf(t, vault))
	maps.DeleteFunc(server.objects, func(path, _ string) bool { return path != "/version" && path != webhookConfiguration })
	rows, err := a.Verify(t.Context(), EveryWrite)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		got = append(got, fmt.Sprintf("%s, %s: %s", row.Resource, row.Write, row.Got))
	}
	want := []string{
		"serviceaccounts/vault/keeper, look for it: absent",
		"serviceaccounts/vault/keeper, create: denied",
		"secrets/vault/*, mint a token under another name: denied",
		"namespaces/vault, look for it: absent",
		"secrets/vault/(random name), create an unrelated Secret: denied",
		"configmaps/vault/(random name), create an unrelated ConfigMap: allowed",
		"clusterroles.rbac.authorization.k8s.io/(random name), create an unrelated ClusterRole: denied",
		"clusterroles.rbac.authorization.k8s.io/apigw-guardian-unrelated, apply an unrelated ClusterRole: denied",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestVerifyRepointsAnotherAccountsSecret(t *testing.T) {
	server, a := serve(t, setOf(t, shop))
	const metadata = `"metadata":{"namespace":"kube-system","name":%q,"annotations":{"kubernetes.io/service-account.name":%q,"kubernetes.io/service-account.uid":"u"}}`
	item := func(name, account string) string {
		return `{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","data":{"token":"Y2FuYXJ5"},` + fmt.Sprintf(metadata, name, account) + `}`
	}
	server.objects["/api/v1/namespaces/kube-system/secrets"] = `{"kind":"SecretList","apiVersion":"v1","items":[` +
		item("clerk-token-own", "clerk") + "," + item("another", "clerk") + "," + item("eves", "eve") + `]}`
	if _, err := a.Verify(t.Context(), EveryWrite); err != nil {
		t.Fatal(err)
	}
	i := slices.Index(server.writes, "PUT /api/v1/namespaces/kube-system/secrets/eves")
	if i < 0 {
		t.Fatalf("there was no such write in %q", server.writes)
	}
	var secret map[string]any
	if err := json.Unmarshal([]byte(server.bodies[i]), &secret); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
		"metadata": map[string]any{
			"namespace": "kube-system", "name": "eves",
			"annotations": map[string]any{"kubernetes.io/service-account.name": "clerk"},
		},
	}
	if diff := cmp.Diff(want, secret); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestStatus(t *testing.T) {
	uid := `"kubernetes.io/service-account.uid":"uid-1"`
	fill := func(s *apiServer) {
		s.objects["/api/v1/namespaces/kube-system/serviceaccounts/clerk"] = `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"namespace":"kube-system","name":"clerk","uid":"uid-1"}}`
		s.objects["/api/v1/namespaces/kube-system/secrets/clerk-token-own"] =
			`{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","data":{"token":"` +
				base64.StdEncoding.EncodeToString([]byte(tokenFor("clerk-token-own"))) + `"},"metadata":` +
				`{"namespace":"kube-system","name":"clerk-token-own","annotations":{"kubernetes.io/service-account.name":"clerk",` + uid + `}}}`
	}
	change := func(path, old, new string) func(*apiServer) {
		return func(s *apiServer) { s.objects[path] = strings.Replace(s.objects[path], old, new, 1) }
	}
	const role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selling"
	const own = "/api/v1/namespaces/kube-system/secrets/clerk-token-own"
	tests := map[string]struct {
		change                func(*apiServer)
		authorized, protected bool
		drift                 []Drift
		reasons               int
		says                  string
	}{
		"all is well": {change: func(*apiServer) {}, authorized: true, protected: true, drift: []Drift{}},
		"a resource is absent": {
			change: func(s *apiServer) { delete(s.objects, role) }, protected: true, drift: []Drift{}, reasons: 1, says: "selling is absent",
		},
		"a resource differs": {
			change: change(role, `"apps"`, `"*"`), protected: true, reasons: 1, says: "differs from its manifest",
			drift: []Drift{{Resource: "clusterroles.rbac.authorization.k8s.io/selling", Paths: []string{"rules[1].apiGroups"}}},
		},
		"the token is of an earlier account": {
			change:    change("/api/v1/namespaces/kube-system/secrets/clerk-token-own", uid, strings.Replace(uid, "-1", "-0", 1)),
			protected: true, drift: []Drift{}, reasons: 1, says: "earlier ServiceAccount",
		},
		"the CA is not the cluster's": {
			change: func(s *apiServer) {
				s.objects["/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"] = `{"data":{"ca.crt":"ours"}}`
				change(own, `"data":{`, `"data":{"ca.crt":"Zm9yZWlnbg==",`)(s)
			},
			protected: true, reasons: 2, says: "data[ca.crt] is not the CA of this cluster",
			drift: []Drift{{Resource: "secrets/kube-system/clerk-token-*", Paths: []string{"data[ca.crt]"}}},
		},
		"the token is another Secret's": {
			change: change(own, base64.StdEncoding.EncodeToString([]byte(tokenFor("clerk-token-own"))),
				base64.StdEncoding.EncodeToString([]byte(tokenFor("clerk-token-old")))),
			protected: true, drift: []Drift{}, reasons: 1, says: "another ServiceAccount or another Secret",
		},
		"the guard is not registered": {
			change: func(s *apiServer) {
				delete(s.objects, webhookConfiguration)
			},
			authorized: true, drift: []Drift{}, reasons: 1, says: "not registered",
		},
		"the guard lets one through": {
			change: func(s *apiServer) {
				s.answer = func(path string) (int, string) {
					if path == role {
						return http.StatusOK, ""
					}
					return deny(path)
				}
			},
			authorized: true, drift: []Drift{}, reasons: 1, says: "selling is not protected",
		},
		"an impostor denies without a proof": {
			change:     func(s *apiServer) { s.replica = nil },
			authorized: true, drift: []Drift{}, reasons: 4, says: "something else than this guard",
		},
		"an impostor denies with a proof of its own": {
			change:     func(s *apiServer) { s.replica = probe.NewReplica(time.Now()) },
			authorized: true, drift: []Drift{}, reasons: 4, says: "something else than this guard",
		},
		"a guard of an earlier version denies": {
			change: func(s *apiServer) {
				s.replica, s.objects[webhookConfiguration] = nil, `{"metadata":{"name":"x"}}`
			},
			authorized: true, drift: []Drift{}, reasons: 4, says: "names no replica",
		},
		"the guard does not answer": {
			change: func(s *apiServer) {
				s.answer = func(string) (int, string) {
					return http.StatusInternalServerError, `Internal error occurred: failed calling webhook "a.apigw-guardian.io": timeout`
				}
			},
			authorized: true, drift: []Drift{}, reasons: 4, says: "the guard was asked and did not answer",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, a := serve(t, setOf(t, shop))
			fill(server)
			test.change(server)
			got, err := a.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Authorized != test.authorized || got.Protected != test.protected || len(got.Reasons) != test.reasons {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(strings.Join(got.Reasons, "\n"), test.says) {
				t.Errorf("got the reasons %q", got.Reasons)
			}
			if diff := cmp.Diff(test.drift, got.Drift); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestStatusKeys(t *testing.T) {
	got, err := json.Marshal(Status{Drift: []Drift{}, Reasons: []string{}})
	want := `{"authorized":false,"protected":false,"drift":[],"privateNetwork":"","denials24h":null,"certificates":{"notAfter":null,"problems":null},"reasons":[]}`
	if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// startRecords starts an API server that has two records, and returns its kubeconfig. Each request calls seen.
func startRecords(t *testing.T, user string, seen func(*http.Request)) string {
	t.Helper()
	list := v1alpha1.AuditRecordList{}
	for i, name := range []string{"alice", "bob"} {
		event := audit.Event{
			Time: time.Date(2026, 11, 25, 8, 20+i, 0, 0, time.UTC), Outcome: v1alpha1.Denied, Operation: "DELETE", Reason: "ReservedDelete",
			Object: v1alpha1.ParseObjectReference("serviceaccounts/kube-system/apigw-ingress"), User: v1alpha1.User{Name: name},
		}
		list.Items = append(list.Items, *event.Record("r", 1))
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(r)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/version":
			_, _ = w.Write([]byte(`{"gitVersion":"v1.37.2"}`))
		case strings.HasSuffix(r.URL.Path, "/auditrecords"):
			_ = json.NewEncoder(w).Encode(list)
		case strings.HasSuffix(r.URL.Path, "/selfsubjectreviews"):
			_, _ = w.Write([]byte(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","status":{"userInfo":{"username":"alice"}}}`))
		case strings.HasSuffix(r.URL.Path, "/status"):
			_, _ = io.Copy(w, r.Body)
		case strings.Contains(r.URL.Path, "/auditrecords/"):
			name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
			if at := slices.IndexFunc(list.Items, func(r v1alpha1.AuditRecord) bool { return r.Name == name }); at >= 0 {
				_ = json.NewEncoder(w).Encode(list.Items[at])
				return
			}
			w.WriteHeader(http.StatusNotFound)
			status := apierrors.NewNotFound(policy.RecordResource().GroupResource(), name).Status()
			status.Kind, status.APIVersion = "Status", "v1"
			_ = json.NewEncoder(w).Encode(status)
		case strings.HasSuffix(r.URL.Path, "/unlocks"):
			_, _ = w.Write([]byte(`{"kind":"UnlockList","apiVersion":"guardian.apigw.io/v1alpha1","metadata":{},"items":[
{"metadata":{"name":"unlock-open"},"spec":{"reason":"ticket 4711"},"status":{"state":"Open"}},
{"metadata":{"name":"unlock-over"},"spec":{"reason":"ticket 4712"},"status":{"state":"Expired"}}]}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{"clusters":[{"name":"c","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],"users":[{"name":"u","user":%s},{"name":"other","user":{"token":"other"}}],
"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"current-context":"x"}`, server.URL, user)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandLinesOfKubectlUsers(t *testing.T) {
	const alice = "20261125t0820-delete-82ff3f59d40947117613" // alice's record
	var header http.Header
	kubeconfig := startRecords(t, `{"token":"mine"}`, func(r *http.Request) { header = r.Header })
	if code, stdout, stderr := runAway(t, "audit", "list", "--no-headers", "--kubeconfig="+kubeconfig); code != exitDone || strings.Contains(stdout, "OUTCOME") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, test := range []struct {
		line  string
		code  int
		says  string
		bears string
	}{
		{"audit list -o name", 0, "auditrecord.guardian.apigw.io/20261125t0820-delete-", "mine"},
		{"audit list -o json", 0, `"kind": "List"`, "mine"},
		{"audit list -o yaml", 0, "apiVersion: v1\n", "mine"},
		{"audit list -o jsonpath={.items[*].spec.user.name}", 0, "bob alice", "mine"},
		{"audit list -o jsonpath={.items[0].kind}", 0, "AuditRecord", "mine"},
		{"audit list -o jsonpath=.items[0].spec.user.name", 0, "bob", "mine"},
		{"audit list -o jsonpath={.items[0].spec.absent}", 0, "", "mine"},
		{"audit list -o wide", 0, "REQUEST UID", "mine"},
		{"audit list --user other", 0, "alice", "other"},
		{"audit list --user nobody", 1, "--by-user", ""},
		{"audit list --by-user alice -o name", 0, "auditrecord", "mine"},
		{"audit list --token given", 0, "alice", "given"},
		{"audit list -s https://127.0.0.1:1", 1, "127.0.0.1:1", ""},
		{"audit list --as eve --as-group staff", 0, "alice", "mine"},
		{"audit list --context x --cluster c --request-timeout 5s", 0, "alice", "mine"},
		{"audit list --request-timeout abc", 1, "--request-timeout", ""},
		{"audit list --request-timeout -1s", 1, "--request-timeout", ""},
		{"audit list --request-timeout 5", 0, "alice", "mine"},
		{"audit list --request-timeout 0", 0, "alice", "mine"},
		{"audit list --certificate-authority /absent/ca", 1, "/absent/ca", ""},
		{"audit list --context absent", 1, "absent", ""},
		{"audit list --cluster absent", 1, "absent", ""},
		{"audit list -o go-template", 2, "--output", ""},
		{"audit list -A", 0, "alice", "mine"},
		{"audit list --all-namespaces -o name", 0, "auditrecord", "mine"},
		{"audit ls", 0, "alice", "mine"},
		{"audit list -v=6", 0, "alice", "mine"},
		{"audit list -v x", 2, "-v", ""},
		{"audit list -o custom-columns=A:.spec.user.name,B:.spec.absent", 0, "A       B\nbob     <none>\nalice   <none>\n", "mine"},
		{"audit list -o custom-columns=A:spec.user.name", 0, "A\nbob\nalice\n", "mine"},
		{"audit list -o custom-columns=A:{.spec.count},B:{spec.operation}", 0, "A   B\n1   DELETE\n1   DELETE\n", "mine"},
		{"audit list -o custom-columns=A:.spec.counts[*].count,B:.metadata.name", 0, "1   " + alice, "mine"},
		{"audit list --by-user carol -o custom-columns=A:.metadata.name", 0, "A\n", "mine"},
		{"audit show " + alice + " -o custom-columns=A:.spec.user.name", 0, "A\nalice\n", "mine"},
		{"audit summary -o custom-columns=A:.writes", 0, "A\n2\n", "mine"},
		{"audit list -o custom-columns=A:.spec.user.name --no-headers", 0, "bob\nalice\n", "mine"},
		{"audit list --no-headers", 0, "Denied", "mine"},
		{"audit report -o json --until 2026-12-01", 0, `"since": "2026-11-01T`, "mine"},
		{"audit report -o json --until 2026-11-01", 0, `"records": 0`, "mine"},
		{"audit report --until x", 2, "--until", ""},
		{"audit list -o jsonpath=", 2, "template", ""},
		{"audit list -o custom-columns=", 2, "HEADER:PATH", ""},
		{"audit list -o custom-columns=A", 2, "HEADER:PATH", ""},
		{"audit list -o custom-columns=A:", 2, "HEADER:PATH", ""},
		{"audit list -o custom-columns=A:{.spec", 2, "HEADER:PATH", ""},
		{"audit list -o custom-columns=A:.spec[", 2, "--output", ""},
		{"audit list -o custom-columns=A:.spec,", 2, "HEADER:PATH", ""},
		{"audit list -o jsonpath={.items[0", 2, "--output", ""},
		{"audit list -o jsonpath={.items[0].spec.count}", 0, "1", "mine"},
		{"audit list -o go-template={{.items}}", 2, "custom-columns=", ""},
		{"audit list --resource clusterrole.rbac.authorization.k8s.io/apigw-ingress-clusterrole", 0, "No record fits", "mine"},
		{"audit list extra", 2, "takes no argument", ""},
		{"audit list --unacknowledged -o name", 0, "auditrecord", "mine"},
		{"audit show " + alice, 0, "alice", "mine"},
		{"audit show auditrecord.guardian.apigw.io/" + alice, 0, "alice", "mine"},
		{"audit show denial/" + alice + " -o name", 0, alice, "mine"},
		{"audit show secret/" + alice, 1, "no such audit record", "mine"},
		{"audit show absent", 1, "absent", "mine"},
		{"audit show", 2, "NAME", ""},
		{"audit ack", 2, "--note", ""},
		{"audit ack " + alice, 2, "--note", ""},
		{"audit ack --note x", 2, "--unacknowledged", ""},
		{"audit ack " + alice + " --note x", 0, "auditrecord.guardian.apigw.io/" + alice + " acknowledged\n", "mine"},
		{"audit ack denials/" + alice + " 4da92 --note x -o name", 0, alice, "mine"},
		{"audit ack " + alice + " --note x -o jsonpath={.items[*].status.acknowledgements[0].by}", 0, "alice", "mine"},
		{"audit ack " + alice + " --note x --dry-run", 0, "(server dry run)", "mine"},
		{"audit ack " + alice + " --note x --dry-run=client", 0, "(dry run)", "mine"},
		{"audit ack " + alice + " --note x --dry-run=all", 2, "client", ""},
		{"audit ack " + alice + " --note x --by-user a", 2, "not both", ""},
		{"audit ack --by-user bob --note x", 0, "4da92", "mine"},
		{"audit ack --by-user carol --note x", 0, "No record fits", "mine"},
		{"audit ack absent " + alice + " --note x", 1, "absent", "mine"},
		{"audit ack 2026 --note x", 1, "2 records", "mine"},
		{"audit report -o pdf", 2, "html", ""},
		{"audit report --since 2026-11-01", 0, "<!doctype html>", "mine"},
		{"audit report -o json --by-user bob --since 2026-11-01", 0, `"filter": "--by-user=bob"`, "mine"},
		{"audit report -o md --outcome Denied --since 2026-11-01", 0, "--outcome=Denied", "mine"},
		{"audit report -o md --cluster-name prod-1", 0, "prod-1", "mine"},
		{"audit report -o json --since 2026-11-01", 0, `"records": 2`, "mine"},
		{"audit report --audit-log /nonexistent/log", 1, "/nonexistent/log", ""},
		{"audit list -n kube-system", 2, "-n", ""},
		{"audit list --since 1w -o csv", 0, "name,outcome", "mine"},
		{"audit list --resource sa/apigw-ingress", 0, "alice", "mine"},
		{"audit list --resource pods", 2, "neither reserved", "mine"},
		{"audit list --resource pod/evil -o json", 2, "neither reserved", "mine"},
		{"audit list --resource secrets/*", 2, "neither reserved", "mine"},
		{"audit list --resource sa/apigw-ingres5", 2, "neither reserved", "mine"},
		{"audit list --resource sa/default/apigw-ingress", 2, "neither reserved", "mine"},
		{"audit list --resource sa/apigw-ingress --since 1h", 0, "No record fits", "mine"},
		{"audit export --resource sa/apigw-ingres5", 2, "neither reserved", "mine"},
		{"audit report --resource sa/apigw-ingres5", 2, "neither reserved", "mine"},
		{"audit ack --resource sa/apigw-ingres5 --note x", 2, "neither reserved", "mine"},
		{"audit list --since 2999-01-01", 0, "not in the past", "mine"},
		{"audit list --since 0", 0, "not in the past", "mine"},
		{"audit summary --since 2999-01-01T00:00:00Z", 0, "not in the past", "mine"},
		{"audit list --resource deploy/x", 2, "neither reserved", "mine"},
		{"audit list --resource clusterolebinding", 2, "neither reserved", "mine"},
		{"audit list --resource sa,secret", 2, "neither reserved", "mine"},
		{"audit list --resource ingress-token", 0, "No record fits", "mine"},
		{"audit list --resource secret", 0, "No record fits", "mine"},
		{"audit summary --resource clusterolebinding", 2, "neither reserved", "mine"},
		{"audit show 20261125t0820", 1, "", "mine"},
		{"audit export --format jsonl", 0, `"kind":"AuditRecord"`, "mine"},
		{"audit export --format cloudevents", 0, `"source":"/clusters/c/apis/`, "mine"},
		{"audit export --format ocsf --cluster-name prod-1", 0, `"tenant_uid":"prod-1"`, "mine"},
		{"audit export --format csv --cluster-name prod-1", 0, ",prod-1,false,\n", "mine"},
		{"audit export --cluster-name prod-1", 0, `"cluster":"prod-1"`, "mine"},
		{"audit summary -o jsonpath={.writes}", 0, "2", "mine"},
		{"--version", 0, "apigw-guardian version " + version, ""},
		{"version", 0, "apigw-guardian " + version, ""},
		{"__complete audit list --outcome ", 0, "WouldDeny", ""},
		{"__complete audit list --reason ", 0, "TokenMint", ""},
		{"__complete audit list --operation ", 0, "DELETE", ""},
		{"__complete audit list -o ", 0, "jsonpath=", ""},
		{"__complete audit export --format ", 0, "ocsf", ""},
		{"__complete audit list --by-user ", 0, "alice\n", "mine"},
		{"__complete audit list --resource ", 0, "serviceaccounts/kube-system/apigw-ingress", "mine"},
		{"__complete lock ", 0, "unlock-open\tticket 4711\n:4\n", "mine"},
		{"__complete unlock approve ", 0, "unlock-open", "mine"},
		{"__complete audit show ", 0, "20261125t0820-delete-", "mine"},
		{"__complete unlock --user ", 0, "alice\n", "mine"},
		{"__complete unlock --resource ", 0, "serviceaccounts/kube-system/apigw-ingress\n", "mine"},
		{"__complete audit list --context ", 0, "x\n:4\n", ""},
		{"__complete audit list --cluster ", 0, "c\n:4\n", ""},
		{"__complete status --user ", 0, "other\nu\n:4\n", ""},
	} {
		header = nil
		args := strings.Split(test.line, " ")
		if args[0] == "__complete" {
			args = append([]string{"__complete", "--kubeconfig=" + kubeconfig}, args[1:]...)
		} else {
			args = append(args, "--kubeconfig="+kubeconfig)
		}
		code, stdout, stderr := runAway(t, args...)
		_ = new(klog.Level).Set("0") // the level is the process's
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("%s: exit code %d, want %d; want %q in\n%s%s", test.line, code, test.code, test.says, stdout, stderr)
		}
		if test.bears != "" && header.Get("Authorization") != "Bearer "+test.bears {
			t.Errorf("%s: authorization %q", test.line, header.Get("Authorization"))
		}
	}
}

// A kubeconfig with the auth provider oidc works with kubectl.
func TestAKubeconfigWithAnAuthProvider(t *testing.T) {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	token := encode(`{"alg":"none"}`) + "." + encode(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())) + ".x"
	var bearer string
	kubeconfig := startRecords(t, `{"auth-provider":{"name":"oidc","config":{"idp-issuer-url":"https://127.0.0.1:1","client-id":"x","id-token":"`+token+`"}}}`,
		func(r *http.Request) { bearer = r.Header.Get("Authorization") })
	code, stdout, stderr := runAway(t, "audit", "list", "--kubeconfig="+kubeconfig)
	if code != exitDone || !strings.Contains(stdout, "alice") || bearer != "Bearer "+token {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
}

func TestAPluginCallsItselfByTheNameOfItsCaller(t *testing.T) {
	root := newRoot()
	nameAs(root, "kubectl-apigw_guardian")
	list, _, err := root.Find([]string{"audit", "list"})
	if err != nil {
		t.Fatal(err)
	}
	usage := list.UsageString()
	if strings.Count(usage, "kubectl apigw-guardian audit list") < 3 || strings.Contains(strings.ReplaceAll(usage, "kubectl apigw-guardian", ""), "apigw-guardian ") {
		t.Errorf("the help is\n%s", usage)
	}
	if list.CommandPath() != "kubectl apigw-guardian audit list" {
		t.Errorf("the path is %q", list.CommandPath())
	}
	for _, program := range []string{"apigw-guardian", "kubectl-apigw-guardian", ""} {
		root := newRoot()
		if nameAs(root, program); root.CommandPath() != "apigw-guardian" {
			t.Errorf("%s: %q", program, root.CommandPath())
		}
	}
}

// kubectl calls an executable of this name with the words after the plugin's.
func TestKubectlCompletesThePlugin(t *testing.T) {
	kubeconfig := startRecords(t, `{"token":"mine"}`, func(*http.Request) {})
	for _, name := range []string{"kubectl_complete-apigw_guardian", "/usr/bin/kubectl_complete-apigw_guardian", "kubectl_complete-apigw_guardian.exe"} {
		code, stdout, stderr := runAway(t, arguments([]string{name, "--kubeconfig=" + kubeconfig, "lock", ""})...)
		if code != exitDone || stdout != "unlock-open\tticket 4711\n:4\n" {
			t.Errorf("%s: exit code %d, %s%s", name, code, stdout, stderr)
		}
	}
	if diff := cmp.Diff([]string{"lock", ""}, arguments([]string{"kubectl-apigw_guardian", "lock", ""})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

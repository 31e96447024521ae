// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

func builtIn(tb testing.TB) *reserved.Set {
	tb.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

func testdata(tb testing.TB, name string) []byte {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return content
}

// read returns the ids of the events and the texts of the errors, in order.
func read(content []byte) (ids, errs []string) {
	for event, err := range Events(bytes.NewReader(content)) {
		if err != nil {
			errs = append(errs, err.Error())
			continue
		}
		ids = append(ids, event.ID)
	}
	return ids, errs
}

// told returns the judgments of a log, one line each.
func told(t *testing.T, set *reserved.Set, content []byte) []string {
	t.Helper()
	var lines []string
	for event, err := range Events(bytes.NewReader(content)) {
		if err != nil {
			t.Fatal(err)
		}
		for _, judgment := range Judge(set, event) {
			write := judgment.Event
			lines = append(lines, strings.Join(strings.Fields(fmt.Sprint(
				judgment.Kind, " ", write.Outcome, " ", write.Operation, " ", write.Object, " ", write.Reason, " ", write.User.Name, map[bool]string{true: " (refused)"}[judgment.Refused])), " "))
		}
	}
	return lines
}

const (
	role    = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
	binding = "clusterrolebindings.rbac.authorization.k8s.io/apigw-ingress-clusterrole-binding"
	account = "serviceaccounts/kube-system/apigw-ingress"
)

// A real API server wrote the logs: e2e/auditimport updates them.
func TestJudgmentsOfRealLogs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"metadata.jsonl": {
			"Decided Denied UPDATE " + role + " ReservedUpdate alice",
			"Decided Denied UPDATE " + role + " ReservedUpdate alice",
			"Decided Denied UPDATE " + role + " ReservedUpdate alice",
			"Decided Denied DELETE " + binding + " ReservedDelete bob",
			"Decided Denied DELETE " + binding + " ReservedDelete bob",
			"DryRun DELETE " + binding + " bob",
			"DryRun DELETE " + binding + " ReservedDelete bob",
			"Passed UPDATE " + account + " NoChange carol",
			"Failed UPDATE " + role + " dave",
			"Failed UPDATE " + role + " dave",
			"Unguarded Unguarded UPDATE " + role + " GuardNotAsked eve",
			"Decided Denied UPDATE " + role + " ReservedUpdate eve",
			"Decided Restored UPDATE " + role + " Restoration frank",
		},
		"bodies.jsonl": {
			"Unguarded Unguarded CREATE secrets/kube-system/mallory GuardNotAsked mallory",
			"Unguarded Unguarded CREATE secrets/kube-system/apigw-ingress-token-br9t5 GuardNotAsked mallory",
			"Unguarded Unguarded DELETE secrets/kube-system/apigw-ingress-token-br9t5 GuardNotAsked mallory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := gocmp.Diff(want, told(t, builtIn(t), testdata(t, name))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// edit has members of an event that a test sets, by the path of their keys joined by ">". nil removes a member.
type edit map[string]any

// line returns the event of a successful update of the reserved ClusterRole by alice, with the edits.
func line(t *testing.T, edits ...edit) []byte {
	t.Helper()
	const plain = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id","stage":"ResponseComplete",
		"requestURI":"/apis/rbac.authorization.k8s.io/v1/clusterroles/apigw-ingress-clusterrole","verb":"patch",
		"user":{"username":"alice","groups":["system:authenticated"]},
		"objectRef":{"resource":"clusterroles","name":"apigw-ingress-clusterrole","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"},
		"responseStatus":{"metadata":{},"code":200},"annotations":{},
		"requestReceivedTimestamp":"2026-11-25T08:20:00.000000Z","stageTimestamp":"2026-11-25T08:20:00.100000Z"}`
	var event map[string]any
	if err := json.Unmarshal([]byte(plain), &event); err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		for path, value := range edit {
			keys := strings.Split(path, ">")
			at := event
			for _, key := range keys[:len(keys)-1] {
				if _, found := at[key]; !found {
					at[key] = map[string]any{}
				}
				at = at[key].(map[string]any)
			}
			at[keys[len(keys)-1]] = value
			if value == nil {
				delete(at, keys[len(keys)-1])
			}
		}
	}
	data, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// decision returns the annotations of a decision of the guard.
func decision(webhook, verb, reason, outcome, record string) edit {
	e := edit{}
	for key, value := range map[string]string{
		"decision": verb, "reason": reason, "outcome": outcome, "operation": "UPDATE", "resource": role, "record": record,
	} {
		if value != "" {
			e["annotations>"+webhook+".apigw-guardian.io/"+key] = value
		}
	}
	return e
}

// byPolicy returns the annotations of a denial by a policy, with the edits.
func byPolicy(operation string, edits edit) edit {
	e := edit{}
	for key, value := range map[string]string{
		"decision": "deny", "reason": "ReservedUpdate", "outcome": "Denied", "operation": operation, "resource": role, "message": "No.",
	} {
		e["annotations>apigw-guardian-clusterroles/"+key] = value
	}
	maps.Copy(e, edits)
	return e
}

// operation returns the guard's annotation of the operation.
func operation(operation string) edit {
	return edit{"annotations>clusterroles.apigw-guardian.io/operation": operation}
}

// secret returns an edit that makes a Secret the object of the event.
func secret(verb, name string) edit {
	return edit{
		"verb": verb, "requestURI": "/api/v1/namespaces/kube-system/secrets",
		"objectRef": map[string]any{"resource": "secrets", "namespace": "kube-system", "name": name, "apiVersion": "v1"},
	}
}

const registration = "validatingwebhookconfigurations.admissionregistration.k8s.io/apigw-guardian"

// registrationWrite returns an edit that makes a webhook configuration the object of the event.
func registrationWrite(verb, name string) edit {
	return edit{"verb": verb, "objectRef": map[string]any{
		"resource": "validatingwebhookconfigurations", "name": name, "apiGroup": "admissionregistration.k8s.io", "apiVersion": "v1",
	}}
}

// policyDenial is what kube-apiserver 1.37.2 says when a policy denies.
func policyDenial(policy string) string {
	return `validatingwebhookconfigurations.admissionregistration.k8s.io "apigw-guardian" is forbidden: ValidatingAdmissionPolicy '` + policy +
		`' with binding '` + policy + `' denied request: Only the guard may change its webhook configuration.`
}

func code(code int, message string) edit {
	return edit{"responseStatus": map[string]any{"code": code, "message": message}}
}

func TestJudgments(t *testing.T) {
	t.Parallel()
	const record = "20261125t0820-update-0123456789abcdef0123"
	const failed = `Internal error occurred: failed calling webhook "clusterroles.apigw-guardian.io": failed to call webhook: EOF`
	const denial = `admission webhook "clusterroles.apigw-guardian.io" denied the request: No.`
	unguarded := "Unguarded Unguarded UPDATE " + role + " GuardNotAsked alice"
	mint := edit{"requestObject": map[string]any{"metadata": map[string]any{
		"name": "any", "annotations": map[string]any{"kubernetes.io/service-account.name": "apigw-ingress"},
	}}}
	for name, test := range map[string]struct {
		edits []edit
		want  []string
	}{
		"a write that the guard was not asked about": {nil, []string{unguarded}},
		"a denial by a policy": {
			[]edit{code(403, `is forbidden: ValidatingAdmissionPolicy`), byPolicy("UPDATE", nil)},
			[]string{"Decided Denied UPDATE " + role + " ReservedUpdate alice"},
		},
		"a deletion that a policy denies": {
			[]edit{{"verb": "delete"}, code(403, ""), byPolicy("DELETE", nil)},
			[]string{"Decided Denied DELETE " + role + " ReservedUpdate alice"},
		},
		"a dry run of a deletion that a policy denies": {
			[]edit{{"verb": "delete"}, code(403, ""), byPolicy("DELETE", edit{"annotations>apigw-guardian-clusterroles/dryRun": "true"})},
			[]string{"DryRun DELETE " + role + " ReservedUpdate alice"},
		},
		"an update that a policy observes": {
			[]edit{byPolicy("UPDATE", edit{
				"annotations>apigw-guardian-clusterroles/decision": "allow", "annotations>apigw-guardian-clusterroles/outcome": "WouldDeny",
			})},
			[]string{"Decided WouldDeny UPDATE " + role + " ReservedUpdate alice"},
		},
		"a read":           {[]edit{{"verb": "get"}}, nil},
		"an earlier stage": {[]edit{{"stage": "RequestReceived"}}, nil},
		"a refused write":  {[]edit{code(403, "forbidden: RBAC")}, nil},
		"a conflict":       {[]edit{code(409, "")}, nil},
		"a policy denies a change of the webhook configuration": {
			[]edit{registrationWrite("patch", "apigw-guardian"), code(403, policyDenial("apigw-guardian-registration"))},
			[]string{"Decided Denied UPDATE " + registration + " DeniedByPolicy alice"},
		},
		"a policy denies the deletion of its collection": {
			[]edit{registrationWrite("deletecollection", ""), code(403, policyDenial("apigw-guardian-registration"))},
			[]string{"Decided Denied DELETE " + registration + " DeniedByPolicy alice"},
		},
		"a policy denies a dry run": {
			[]edit{registrationWrite("delete", "apigw-guardian"), {"requestURI": "/x?dryRun=All"}, code(403, policyDenial("apigw-guardian-registration"))},
			[]string{"DryRun DELETE " + registration + " alice"},
		},
		"another policy denies":                                     {[]edit{registrationWrite("patch", "apigw-guardian"), code(403, policyDenial("apigw-guardian-other"))}, nil},
		"a rejected field quotes a policy":                          {[]edit{registrationWrite("patch", "apigw-guardian"), code(422, policyDenial("apigw-guardian-records"))}, nil},
		"a change of the webhook configuration that nothing denies": {[]edit{registrationWrite("patch", "apigw-guardian")}, nil},
		"an aborted write":                                          {[]edit{code(504, "timeout")}, []string{"Unclear UPDATE " + role + " alice"}},
		"a write that panics":                                       {[]edit{{"stage": "Panic"}, code(500, "")}, []string{"Unclear UPDATE " + role + " alice"}},
		"a write to another name":                                   {[]edit{{"objectRef>name": "other"}}, nil},
		"an aborted write to another name":                          {[]edit{{"objectRef>name": "other"}, code(500, "")}, nil},
		"another group's resource":                                  {[]edit{{"objectRef>apiGroup": "example.com"}}, nil},
		"an unknown subresource":                                    {[]edit{{"objectRef>subresource": "status"}}, nil},
		"an event about no object":                                  {[]edit{{"objectRef": nil}}, nil},
		"a dry run that is not denied":                              {[]edit{{"requestURI": "/x?fieldManager=a&dryRun=All"}}, []string{"DryRun UPDATE " + role + " alice"}},
		"a probe of the way to the guard": {[]edit{
			{
				"requestURI": "/x?dryRun=All", "objectRef>apiGroup": "", "objectRef>resource": "configmaps", "objectRef>namespace": "guard",
				"objectRef>name": "apigw-guardian-replicas",
			},
			code(403, `admission webhook "unlocks.apigw-guardian.io" denied the request: the API server reaches the guard`),
		}, nil},
		"a PUT that creates": {[]edit{{"verb": "update"}, code(201, "")}, []string{"Unguarded Unguarded CREATE " + role + " GuardNotAsked alice"}},
		"impersonation": {
			[]edit{{"impersonatedUser": map[string]any{"username": "eve"}}}, []string{"Unguarded Unguarded UPDATE " + role + " GuardNotAsked eve"},
		},
		"a denial": {
			[]edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", record), code(403, denial)},
			[]string{"Decided Denied UPDATE " + role + " ReservedUpdate alice"},
		},
		"a denial with another webhook's message": {
			[]edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", record), code(403, "no, says another")},
			[]string{"Decided Denied UPDATE " + role + " ReservedUpdate alice"},
		},
		"a denial of a patch that creates": {
			[]edit{decision("clusterroles", "deny", "TokenMint", "Denied", record), operation("CREATE"), code(403, denial)},
			[]string{"Decided Denied CREATE " + role + " TokenMint alice"},
		},
		"denials by two webhooks": {
			[]edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", record), decision("clusterroles.edge", "deny", "ReservedUpdate", "Denied", record)},
			[]string{"Decided Denied UPDATE " + role + " ReservedUpdate alice", "Decided Denied UPDATE " + role + " ReservedUpdate alice"},
		},
		"an observed write": {
			[]edit{decision("clusterroles", "allow", "ReservedUpdate", "WouldDeny", record)}, []string{"Decided WouldDeny UPDATE " + role + " ReservedUpdate alice"},
		},
		"the control plane's own write": {
			[]edit{decision("clusterroles", "allow", "SystemWrite", "", "")}, []string{"Passed UPDATE " + role + " SystemWrite alice"},
		},
		"a deletion without a record is a dry run": {
			[]edit{{"verb": "delete"}, decision("clusterroles", "deny", "ReservedDelete", "Denied", ""), operation("DELETE"), code(403, denial)},
			[]string{"DryRun DELETE " + role + " ReservedDelete alice"},
		},
		"an update without a record must have one": {
			[]edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", ""), code(403, denial)},
			[]string{"Decided Denied UPDATE " + role + " ReservedUpdate alice"},
		},
		"a dry run that its body requests": {
			[]edit{{"verb": "delete", "requestObject": map[string]any{"kind": "DeleteOptions", "dryRun": []string{"All"}}}},
			[]string{"DryRun DELETE " + role + " alice"},
		},
		"the message of a denial without its decision": {
			[]edit{decision("clusterroles", "allow", "Restoration", "Restored", record), code(403, denial)},
			[]string{"Decided Restored UPDATE " + role + " Restoration alice (refused)", "Unclear UPDATE " + role + " alice"},
		},
		"a write that was reviewed twice, and denied the second time": {
			[]edit{decision("clusterroles", "allow", "SystemWrite", "Denied", record), code(403, denial)},
			[]string{"Decided Denied UPDATE " + role + " alice"},
		},
		"a write that was reviewed twice, and denied the second time, without an outcome": {
			[]edit{decision("clusterroles", "allow", "NoChange", "", record), code(403, denial)},
			[]string{"Decided Denied UPDATE " + role + " alice"},
		},
		"a write that was reviewed twice, and denied the second time without a record": {
			[]edit{decision("clusterroles", "allow", "NoChange", "", ""), code(403, denial)},
			[]string{"Unclear UPDATE " + role + " alice"},
		},
		"an allowed write that RBAC of a finalizer refuses": {
			[]edit{decision("clusterroles", "allow", "SystemWrite", "", ""), code(403, "forbidden")},
			[]string{"Refused UPDATE " + role + " SystemWrite alice"},
		},
		"a restoration that another webhook refuses": {
			[]edit{decision("clusterroles", "allow", "Restoration", "Restored", record), code(403, "no, says another")},
			[]string{"Decided Restored UPDATE " + role + " Restoration alice (refused)"},
		},
		"an unknown outcome and operation": {
			[]edit{decision("clusterroles", "deny", "ReservedUpdate", "Lost", record), operation("EAT")},
			[]string{"Passed UPDATE " + role + " ReservedUpdate alice"},
		},
		"a failed call": {[]edit{code(500, failed)}, []string{"Failed UPDATE " + role + " alice"}},
		"a failed call in the text of another message": {
			[]edit{{"objectRef>name": "other"}, code(403, `admission webhook "other.example.com" denied the request: `+failed)}, nil,
		},
		"a failed call of another webhook": {
			[]edit{{"objectRef>name": "other"}, code(500, strings.ReplaceAll(failed, "apigw-guardian", "example"))}, nil,
		},
		"a call that failed open": {
			[]edit{{"annotations>failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "clusterroles.apigw-guardian.io"}},
			[]string{"Unguarded Unguarded UPDATE " + role + " GuardNotReached alice"},
		},
		"a Secret under the prefix": {
			[]edit{secret("create", "apigw-ingress-token-x")},
			[]string{"Unguarded Unguarded CREATE secrets/kube-system/apigw-ingress-token-x GuardNotAsked alice"},
		},
		"a Secret under another name, without its body": {[]edit{secret("create", "any")}, nil},
		"a Secret under another name, whose body names the account": {
			[]edit{secret("create", "any"), mint}, []string{"Unguarded Unguarded CREATE secrets/kube-system/any GuardNotAsked alice"},
		},
		"a patch that has the account but no name": {
			[]edit{secret("patch", "any"), mint, {"requestObject>metadata>name": nil}},
			[]string{"Unguarded Unguarded UPDATE secrets/kube-system/any GuardNotAsked alice"},
		},
		"such a Secret in another namespace": {[]edit{secret("create", "any"), mint, {"objectRef>namespace": "elsewhere"}}, nil},
		"a Secret under a generated name":    {[]edit{secret("create", "")}, []string{"Unclear CREATE secrets/kube-system alice"}},
		"a ClusterRole under a generated name": {
			[]edit{{"verb": "create", "objectRef>name": nil}}, nil,
		},
		"a collection without items in the log": {
			[]edit{secret("deletecollection", "")}, []string{"Unclear DELETE secrets/kube-system alice"},
		},
		"a collection of another name": {
			[]edit{secret("deletecollection", ""), {"requestURI": "/api/v1/namespaces/kube-system/secrets?fieldSelector=metadata.name%3Dother"}}, nil,
		},
		"a collection of a reserved name": {
			[]edit{secret("deletecollection", ""), {"requestURI": "/x?fieldSelector=metadata.name%3Dapigw-ingress-token-guardian"}},
			[]string{"Unclear DELETE secrets/kube-system alice"},
		},
		"a collection without reserved resources": {
			[]edit{secret("deletecollection", ""), {"level": "RequestResponse", "responseObject": map[string]any{"items": []any{
				map[string]any{"metadata": map[string]any{"name": "a", "namespace": "kube-system"}},
			}}}}, nil,
		},
		"an empty collection": {
			[]edit{secret("deletecollection", ""), {"level": "RequestResponse", "responseObject": map[string]any{"items": []any{}}}}, nil,
		},
		"a collection with two reserved resources": {
			[]edit{secret("deletecollection", ""), {"responseObject": map[string]any{"items": []any{
				map[string]any{"metadata": map[string]any{"name": "apigw-ingress-token-a", "namespace": "kube-system"}},
				map[string]any{"metadata": map[string]any{"name": "apigw-ingress-token-b", "namespace": "kube-system"}},
			}}}},
			[]string{
				"Unguarded Unguarded DELETE secrets/kube-system/apigw-ingress-token-a GuardNotAsked alice",
				"Unguarded Unguarded DELETE secrets/kube-system/apigw-ingress-token-b GuardNotAsked alice",
			},
		},
		"the API server labels a used token": {
			[]edit{secret("patch", "apigw-ingress-token-guardian"), {"user": map[string]any{"username": "system:apiserver", "groups": []any{"system:masters"}}}},
			[]string{"Passed UPDATE secrets/kube-system/apigw-ingress-token-guardian system:apiserver"},
		},
		"a user impersonates the API server": {
			[]edit{secret("patch", "apigw-ingress-token-guardian"), {"impersonatedUser": map[string]any{"username": "system:apiserver", "groups": []any{"system:masters"}}}},
			[]string{"Unguarded Unguarded UPDATE secrets/kube-system/apigw-ingress-token-guardian GuardNotAsked system:apiserver"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := gocmp.Diff(test.want, told(t, builtIn(t), line(t, test.edits...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Another reservation has a dedicated namespace, and an account without a token Secret.
func TestJudgmentsOfAnotherReservation(t *testing.T) {
	t.Parallel()
	set, err := reserved.Load("../../../e2e/testdata/reservations")
	if err != nil {
		t.Fatal(err)
	}
	namespace := func(verb string) edit {
		return edit{"verb": verb, "objectRef": map[string]any{"resource": "namespaces", "name": "edge-system", "apiVersion": "v1"}}
	}
	inEdge := edit{"objectRef>namespace": "edge-system"}
	for name, test := range map[string]struct {
		edits []edit
		want  []string
	}{
		"its namespace is labelled":                       {[]edit{namespace("patch")}, nil},
		"its namespace is labelled, and the write aborts": {[]edit{namespace("patch"), code(500, "")}, nil},
		"its namespace is deleted": {
			[]edit{namespace("delete")}, []string{"Unguarded Unguarded DELETE namespaces/edge-system GuardNotAsked alice"},
		},
		"a Secret under a generated name may have the account's token": {
			[]edit{secret("create", ""), inEdge}, []string{"Unclear CREATE secrets/edge-system alice"},
		},
		"a Secret under a name, without its body": {[]edit{secret("create", "any"), inEdge}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := gocmp.Diff(test.want, told(t, set, line(t, test.edits...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func zipped(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	for _, part := range parts {
		writer := gzip.NewWriter(&buffer)
		_, errWrite := writer.Write(part)
		if err := errors.Join(errWrite, writer.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return buffer.Bytes()
}

func TestReading(t *testing.T) {
	t.Parallel()
	a, b := line(t, edit{"auditID": "a"}), line(t, edit{"auditID": "b"})
	join := func(parts ...string) []byte { return []byte(strings.Join(parts, "")) }
	two := join(string(a), string(b))
	long := bytes.Replace(a, []byte(`"verb"`), []byte(`"long":"`+strings.Repeat("x", 3<<20)+`","verb"`), 1)
	tooLong := append(bytes.Repeat([]byte("x"), MaxLine+1), '\n')
	damaged := zipped(t, two)
	damaged[len(damaged)-6] ^= 0xff
	for name, test := range map[string]struct {
		content   []byte
		ids, errs []string
	}{
		"nothing":                          {nil, nil, nil},
		"two lines":                        {two, []string{"a", "b"}, nil},
		"no line feed at the end":          {bytes.TrimSpace(two), []string{"a", "b"}, nil},
		"blank lines and carriage returns": {join("\n\r\n", string(bytes.TrimSpace(a)), "\r\n  \n"), []string{"a"}, nil},
		"a line of several megabytes":      {join(string(long), string(b)), []string{"a", "b"}, nil},
		"a line that is too long":          {join(string(tooLong), string(b)), []string{"b"}, []string{fmt.Sprintf("line 1: more than %d bytes: line too long", MaxLine)}},
		"a list of events":                 {join(`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[`, string(bytes.TrimSpace(a)), ",", string(bytes.TrimSpace(b)), "]}\n"), []string{"a", "b"}, nil},
		"a list of other events":           {[]byte(`{"kind":"EventList","apiVersion":"v1","items":[]}`), nil, []string{"line 1: " + ErrNotEvent.Error()}},
		"a broken line between":            {join(string(a), "{\"kind\":\n", string(b)), []string{"a", "b"}, []string{"line 2: not valid JSON"}},
		"a truncated line":                 {two[:len(two)-20], []string{"a"}, []string{"line 2: not valid JSON"}},
		"bytes that are not UTF-8":         {join("{\"a\":\"\xff\"}\n", string(b)), []string{"b"}, []string{"line 1: not valid JSON"}},
		"JSON that is not an event":        {join("{}\n[]\n7\n", string(b)), []string{"b"}, []string{"line 1: " + ErrNotEvent.Error(), "line 2: " + ErrNotEvent.Error(), "line 3: " + ErrNotEvent.Error()}},
		"an event of core/v1":              {line(t, edit{"apiVersion": "v1"}), nil, []string{"line 1: " + ErrNotEvent.Error()}},
		"an event without a time":          {line(t, edit{"stageTimestamp": nil}), nil, []string{"line 1: no auditID, stage or stageTimestamp: " + ErrNotEvent.Error()}},
		"gzip":                             {zipped(t, two), []string{"a", "b"}, nil},
		"gzip of several parts":            {zipped(t, a, b), []string{"a", "b"}, nil},
		"truncated gzip":                   {zipped(t, a, b)[:len(zipped(t, a))+30], []string{"a"}, []string{ErrCutOff.Error() + ": unexpected EOF"}},
		"damaged gzip":                     {damaged, []string{"a", "b"}, []string{ErrCutOff.Error() + ": gzip: invalid checksum"}},
		"only the start of gzip":           {[]byte{0x1f, 0x8b}, nil, []string{ErrCutOff.Error() + ": unexpected EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ids, errs := read(test.content)
			if diff := gocmp.Diff(test.ids, ids); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(test.errs, errs); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsEndWhenTheReaderFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	var got []error
	for _, err := range Events(iotest.ErrReader(broken)) {
		got = append(got, err)
	}
	if len(got) != 1 || !errors.Is(got[0], broken) || errors.Is(got[0], ErrCutOff) {
		t.Errorf("got %v, want the reader's error once", got)
	}
}

func TestReadingCanStopEarly(t *testing.T) {
	t.Parallel()
	for _, content := range [][]byte{slices.Concat(line(t), line(t)), []byte("x\ny\n")} {
		n := 0
		for range Events(bytes.NewReader(content)) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("got %d rounds, want 1", n)
		}
	}
}

// at returns an edit that sets the time of an event and gives it a unique ID.
func at(clock string) edit {
	return edit{
		"auditID":                  clock,
		"requestReceivedTimestamp": "2026-11-25T" + clock + ".000000Z", "stageTimestamp": "2026-11-25T" + clock + ".100000Z",
	}
}

func logOf(t *testing.T, lines ...[]byte) *Log {
	t.Helper()
	log := NewLog(builtIn(t))
	for event, err := range Events(bytes.NewReader(slices.Concat(lines...))) {
		if err != nil {
			t.Fatal(err)
		}
		log.Add(event)
	}
	return log
}

const recordName = "20261125t0820-update-0123456789abcdef0123"

func recordOf(name string, count int64, first, last string) v1alpha1.AuditRecord {
	parse := func(clock string) time.Time {
		parsed, err := time.Parse(time.RFC3339, "2026-11-25T"+clock+"Z")
		if err != nil {
			panic(err)
		}
		return parsed
	}
	event := audit.Event{Time: parse(first), Outcome: v1alpha1.Denied, Source: v1alpha1.SourceGuard}
	record := event.Record("a", count)
	record.Name = name
	record.Spec.LastTime.Time = parse(last)
	return *record
}

// brief returns a report as lines such as "missing NAME logged/recorded".
func brief(report *Report) []string {
	lines := []string{fmt.Sprintf("agreeing %d", report.Agreeing)}
	for _, d := range report.Missing {
		lines = append(lines, fmt.Sprintf("missing %s %d/%d", d.Record, d.Logged, d.Recorded))
	}
	for _, d := range report.Surplus {
		lines = append(lines, fmt.Sprintf("surplus %s %d/%d", d.Record, d.Logged, d.Recorded))
	}
	for _, s := range report.Away {
		lines = append(lines, fmt.Sprintf("away %s to %s: %d refused, %d unguarded",
			s.From.UTC().Format(time.TimeOnly), s.To.UTC().Format(time.TimeOnly), s.Failed, s.Unguarded))
	}
	return lines
}

func TestComparing(t *testing.T) {
	t.Parallel()
	denied := func(clock string, edits ...edit) []byte {
		return line(t, append([]edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", recordName), code(403, ""), at(clock)}, edits...)...)
	}
	failed := func(clock string) []byte {
		return line(t, at(clock), code(500, `Internal error occurred: failed calling webhook "clusterroles.apigw-guardian.io": x`))
	}
	unguarded := func(clock string) []byte { return line(t, at(clock)) }
	unguardedName := logOf(t, unguarded("08:20:01")).Compare(nil).Missing[0].Record
	nameless := edit{"annotations>clusterroles.apigw-guardian.io/record": nil}
	unnamed := logOf(t, denied("08:20:01", nameless)).Compare(nil).Missing[0].Record
	for name, test := range map[string]struct {
		lines   [][]byte
		records []v1alpha1.AuditRecord
		want    []string
	}{
		"the record has all writes": {
			[][]byte{denied("08:20:01"), denied("08:20:02")},
			[]v1alpha1.AuditRecord{recordOf(recordName, 2, "08:20:01", "08:20:02")},
			[]string{"agreeing 1"},
		},
		"the record is absent": {[][]byte{denied("08:20:01")}, nil, []string{"agreeing 0", "missing " + recordName + " 1/0"}},
		"the record counts too few writes": {
			[][]byte{denied("08:20:01"), denied("08:20:02"), denied("08:20:03")},
			[]v1alpha1.AuditRecord{recordOf(recordName, 1, "08:20:01", "08:20:01")},
			[]string{"agreeing 0", "missing " + recordName + " 3/1"},
		},
		"an imported record has the missing writes": {
			[][]byte{denied("08:20:01"), denied("08:20:02")},
			[]v1alpha1.AuditRecord{
				recordOf(recordName, 1, "08:20:01", "08:20:01"), recordOf(recordName+"-import", 1, "08:20:01", "08:20:02"),
			},
			[]string{"agreeing 1"},
		},
		"a record counts more than the log that covers it": {
			[][]byte{denied("08:20:01"), denied("08:20:03")},
			[]v1alpha1.AuditRecord{recordOf(recordName, 5, "08:20:01", "08:20:02")},
			[]string{"agreeing 0", "surplus " + recordName + " 2/5"},
		},
		"a record counts more than a log that begins too late": {
			[][]byte{denied("08:20:02"), denied("08:20:03")},
			[]v1alpha1.AuditRecord{recordOf(recordName, 5, "08:20:01", "08:20:02")},
			[]string{"agreeing 1"},
		},
		"a record that the log does not know": {
			[][]byte{unguarded("08:20:00"), unguarded("08:20:09")},
			[]v1alpha1.AuditRecord{recordOf("other", 2, "08:20:01", "08:20:02"), recordOf("later", 2, "08:20:01", "08:21:02")},
			[]string{"agreeing 0", "missing " + unguardedName + " 2/0", "surplus other 0/2", "away 08:20:00 to 08:20:09: 0 refused, 2 unguarded"},
		},
		"a repeated event counts once": {
			[][]byte{denied("08:20:01"), denied("08:20:01")},
			[]v1alpha1.AuditRecord{recordOf(recordName, 1, "08:20:01", "08:20:01")},
			[]string{"agreeing 1"},
		},
		"two requests with one ID count twice": {
			[][]byte{denied("08:20:01", edit{"auditID": "x"}), denied("08:20:02", edit{"auditID": "x"})},
			nil,
			[]string{"agreeing 0", "missing " + recordName + " 2/0"},
		},
		"an invalid record name is not trusted": {
			[][]byte{denied("08:20:01", edit{"annotations>clusterroles.apigw-guardian.io/record": "../x"})},
			nil,
			[]string{"agreeing 0", "missing " + unnamed + " 1/0"},
		},
		"the guard is away twice, in a log out of order": {
			[][]byte{
				failed("08:20:09"), unguarded("08:20:02"), denied("08:20:05"), failed("08:20:01"), failed("08:20:08"),
			},
			[]v1alpha1.AuditRecord{recordOf(recordName, 1, "08:20:05", "08:20:05")},
			[]string{
				"agreeing 1", "missing " + unguardedName + " 1/0",
				"away 08:20:01 to 08:20:02: 1 refused, 1 unguarded", "away 08:20:08 to 08:20:09: 2 refused, 0 unguarded",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := gocmp.Diff(test.want, brief(logOf(t, test.lines...).Compare(test.records))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestStoringLeavesNothingMissing stores the missing records of parts of the log, then of all of it.
func TestStoringLeavesNothingMissing(t *testing.T) {
	t.Parallel()
	events := [][]byte{line(t, at("08:20:01")), line(t, at("08:20:02"), edit{"user>username": "eve"})}
	for i := range 4 {
		events = append(events, line(t, at(fmt.Sprintf("08:20:1%d", i)), decision("clusterroles", "deny", "ReservedUpdate", "Denied", recordName), code(403, "")))
	}
	stored := map[string]*v1alpha1.AuditRecord{}
	guards := recordOf(recordName, 1, "08:20:10", "08:20:10")
	stored[recordName] = &guards
	all := func() []v1alpha1.AuditRecord {
		var records []v1alpha1.AuditRecord
		for _, record := range stored {
			records = append(records, *record.DeepCopy())
		}
		return records
	}
	for _, part := range [][][]byte{events[:3], events[2:5], events, events, events[1:]} {
		report := logOf(t, part...).Compare(all())
		for _, record := range report.ToStore() {
			if stored[record.Name] == nil {
				stored[record.Name] = record
			} else {
				audit.Merge(stored[record.Name], record)
			}
		}
		if again := logOf(t, part...).Compare(all()); len(again.Missing) > 0 {
			t.Errorf("missing after storing: %v", brief(again))
		}
	}
	got := map[string]int64{}
	for name, record := range stored {
		got[cmp.Or(map[string]string{recordName: "the guard's", recordName + "-import": "the guard's, imported"}[name], record.Spec.User.Name)] = record.Spec.Count
	}
	if diff := gocmp.Diff(map[string]int64{"alice": 1, "eve": 1, "the guard's": 1, "the guard's, imported": 3}, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// The texts of the log may be long and not printable.
func TestAnImportedRecordIsValid(t *testing.T) {
	t.Parallel()
	const evil = "\x1b[31m"
	flood := []edit{decision("clusterroles", "deny", evil+strings.Repeat("r", 100), "Denied", "20261125t0820-flood-0123456789abcdef0123"), code(403, "")}
	log := logOf(t,
		line(t, append(flood, at("08:20:02"), operation("DELETE"))...),
		line(t, append(flood, at("08:20:03"))...),
		line(t, append(flood, at("08:20:01"), edit{"user>username": evil})...))
	record := log.Compare(nil).ToStore()[0]
	want := v1alpha1.AuditRecordSpec{
		Outcome: v1alpha1.Denied, Object: v1alpha1.ParseObjectReference(role), Resource: role, Reason: text.Printable(evil+strings.Repeat("r", 100), 64),
		Count: 3, Counts: []v1alpha1.ReplicaCount{{Replica: "import", Count: 3}}, Replica: "import", Source: v1alpha1.SourceImport,
		FirstTime: metav1.NewMicroTime(time.Date(2026, 11, 25, 8, 20, 1, 100e6, time.UTC)),
		LastTime:  metav1.NewMicroTime(time.Date(2026, 11, 25, 8, 20, 3, 100e6, time.UTC)),
	}
	if diff := gocmp.Diff(want, record.Spec); diff != "" {
		t.Errorf("the record of two users must have no user and no operation (-want +got):\n%s", diff)
	}
}

func TestARecordOfTwoWritesByOneUserNamesTheUser(t *testing.T) {
	t.Parallel()
	write := []edit{decision("clusterroles", "deny", "ReservedUpdate", "Denied", "20261125t0820-update-0123456789abcdef0123"), code(403, "")}
	log := logOf(t, line(t, append(write, at("08:20:01"))...), line(t, append(write, at("08:20:02"))...))
	if spec := log.Compare(nil).ToStore()[0].Spec; spec.User.Name != "alice" || spec.Operation != "UPDATE" || spec.Count != 2 {
		t.Errorf("got %+v", spec)
	}
}

// FuzzEvents reads any bytes. Nothing panics, the same bytes have the same judgments, a broken line hides no later line, and no
// judgment contains a value of a Secret.
func FuzzEvents(f *testing.F) {
	for _, name := range []string{"metadata.jsonl", "bodies.jsonl"} {
		for line := range bytes.Lines(testdata(f, name)) {
			f.Add(line)
		}
	}
	last := slices.Collect(bytes.Lines(testdata(f, "metadata.jsonl")))[0]
	set := builtIn(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		if bytes.HasPrefix(content, []byte{0x1f, 0x8b}) {
			t.Skip("compressed")
		}
		content = slices.Concat(content, []byte("\n"), last)
		tell := func() (string, string) {
			log := NewLog(set)
			var id string
			for event, err := range Events(bytes.NewReader(content)) {
				if err == nil {
					log.Add(event)
					id = event.ID
				}
			}
			report := log.Compare(nil)
			told, err := json.Marshal([]any{report, report.ToStore()})
			if err != nil {
				t.Fatal(err)
			}
			return string(told), id
		}
		first, id := tell()
		second, _ := tell()
		if first != second {
			t.Errorf("different judgments of the same bytes:\n%s\n%s", first, second)
		}
		if !bytes.Contains(last, []byte(id)) || id == "" {
			t.Errorf("the last event is %q", id)
		}
	})
}

func TestEventsContainNoValue(t *testing.T) {
	t.Parallel()
	const value = "Y2FuYXJ5"
	content := slices.Concat(testdata(t, "bodies.jsonl"),
		line(t, code(422, `Secret "x" is invalid: data: Invalid value: "`+value+`"`)),
		line(t, code(500, `Internal error occurred: `+value)))
	if !bytes.Contains(testdata(t, "bodies.jsonl"), []byte(value)) {
		t.Fatal("the log contains no value: the test would prove nothing")
	}
	for event, err := range Events(bytes.NewReader(content)) {
		if err != nil {
			t.Fatal(err)
		}
		if kept := fmt.Sprintf("%+v", event); strings.Contains(kept, value) {
			t.Errorf("an event contains a value: %s", kept)
		}
	}
}

// A record that another client created or edited does not count. The second record of the guard does.
func TestARecordOfAnotherUserDoesNotCount(t *testing.T) {
	t.Parallel()
	log := logOf(t, line(t, at("08:20:10"), decision("clusterroles", "deny", "ReservedUpdate", "Denied", recordName), code(403, "")))
	forged := recordOf(recordName, 1, "08:20:10", "08:20:10")
	second := *forged.DeepCopy()
	second.Name = audit.SecondName(recordName)
	forged.Spec.User.Name = "bob"
	if report := log.Compare([]v1alpha1.AuditRecord{forged}); len(report.Missing) != 1 {
		t.Errorf("only forged: got %v", brief(report))
	}
	if report := log.Compare([]v1alpha1.AuditRecord{forged, second}); report.Agreeing != 1 || len(report.Missing)+len(report.Surplus) > 0 {
		t.Errorf("with a second record: got %v", brief(report))
	}
}

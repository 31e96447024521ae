// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

const lastAppliedPath = "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]"

// withMetadata returns the reserved manifest of a kind with additional fields in its metadata, and a uid like a live object.
func withMetadata(t *testing.T, kind string, fields map[string]any) string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(builtIn(t, kind).Manifest(), &object); err != nil {
		t.Fatal(err)
	}
	metadata := object["metadata"].(map[string]any)
	metadata["uid"] = "7af84d9c-59d5-4f5b-accc-34cd79185019"
	for key, value := range fields {
		if annotations, exist := metadata[key].(map[string]any); exist {
			maps.Copy(annotations, value.(map[string]any))
			continue
		}
		metadata[key] = value
	}
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLastAppliedConfigurationIsComparedWithTheManifest(t *testing.T) {
	t.Parallel()
	manifest := func(kind string) string { return string(builtIn(t, kind).Manifest()) }
	for name, test := range map[string]struct {
		kind, applied string
		harmless      bool
	}{
		"the manifest":                     {"ClusterRole", manifest("ClusterRole"), true},
		"the manifest of the token Secret": {"Secret", manifest("Secret"), true},
		"the manifest without its rules":   {"ClusterRole", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"apigw-ingress-clusterrole"}}`, true},
		"empty fields that kubectl adds":   {"ServiceAccount", inMetadata(manifest("ServiceAccount"), `"annotations":{},"creationTimestamp":null`), true},
		"another name under the prefix":    {"Secret", strings.Replace(manifest("Secret"), "token-guardian", "token-x7k2p", 1), false},
		"a token as a name":                {"Secret", strings.Replace(manifest("Secret"), "token-guardian", "token-eyJhbGciOiJSUzI1NiJ9", 1), false},
		"a token as an empty field":        {"Secret", `{"eyJhbGciOiJSUzI1NiJ9":"",` + manifest("Secret")[1:], false},
		"garbage of null":                  {"ClusterRole", `{"garbage":null}`, false},
		"garbage as an empty label":        {"ClusterRole", inMetadata(manifest("ClusterRole"), `"labels":{"eyJhbGciOiJSUzI1NiJ9":""}`), false},
		"a token as a namespace of a role": {"ClusterRole", inMetadata(manifest("ClusterRole"), `"namespace":"eyJhbGciOiJSUzI1NiJ9"`), false},
		"a rule that grants nothing":       {"ClusterRole", strings.Replace(manifest("ClusterRole"), `"rules":[`, `"rules":[{"verbs":[],"resources":["garbage"]},`, 1), false},
		"two names":                        {"ClusterRole", inMetadata(manifest("ClusterRole"), `"name":"garbage"`), false},
		"an empty object":                  {"ClusterRole", `{}`, true},
		"an empty text":                    {"ClusterRole", "", true},
		"a number":                         {"ClusterRole", "1", false},
		"two documents":                    {"ClusterRole", manifest("ClusterRole") + manifest("ClusterRole"), false},
		"the manifest of another resource": {"ClusterRole", manifest("ServiceAccount"), false},
		"rules in another order of verbs":  {"ClusterRole", strings.Replace(manifest("ClusterRole"), `"get","list"`, `"list","get"`, 1), true},
		"a uid":                            {"ClusterRole", inMetadata(manifest("ClusterRole"), `"uid":"x"`), false},
		"a resourceVersion":                {"ServiceAccount", inMetadata(manifest("ServiceAccount"), `"resourceVersion":"1"`), false},
		"a label":                          {"ClusterRoleBinding", inMetadata(manifest("ClusterRoleBinding"), `"labels":{"a":"b"}`), false},
		"a token":                          {"Secret", `{"data":{"token":"eA=="},` + manifest("Secret")[1:], false},
		"an additional verb":               {"ClusterRole", strings.Replace(manifest("ClusterRole"), `"get","list"`, `"get","delete","list"`, 1), false},
		"a changed subject":                {"ClusterRoleBinding", strings.Replace(manifest("ClusterRoleBinding"), `"subjects":[{`, `"subjects":[{"x":1},{`, 1), false},
		"a name outside of the prefix":     {"Secret", strings.Replace(manifest("Secret"), "apigw-ingress-token-guardian", "other", 1), false},
		"empty data":                       {"Secret", `{"data":{},` + manifest("Secret")[1:], false},
		"a token of null":                  {"Secret", `{"data":{"token":null},` + manifest("Secret")[1:], false},
		"empty labels of a token Secret":   {"Secret", inMetadata(manifest("Secret"), `"labels":{}`), false},
		"empty labels of a role":           {"ClusterRole", inMetadata(manifest("ClusterRole"), `"labels":{}`), true},
		"a uid annotation of null":         {"Secret", strings.Replace(manifest("Secret"), `"annotations":{`, `"annotations":{"kubernetes.io/service-account.uid":null,`, 1), false},
		"no Secrets of an account":         {"ServiceAccount", `{"secrets":[],` + manifest("ServiceAccount")[1:], false},
		"an empty group of a subject":      {"ClusterRoleBinding", strings.Replace(manifest("ClusterRoleBinding"), `"subjects":[{`, `"subjects":[{"apiGroup":"",`, 1), true},
		"a namespace of a role":            {"ClusterRole", inMetadata(manifest("ClusterRole"), `"namespace":"default"`), true},
		"garbage":                          {"ClusterRole", `{"rules":`, false},
		"a list":                           {"ClusterRole", `[]`, false},
		"a text":                           {"ClusterRole", `"x"`, false},
		"a deeply nested object":           {"ClusterRole", strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := withMetadata(t, test.kind, nil)
			new := withMetadata(t, test.kind, map[string]any{"annotations": map[string]any{
				"kubectl.kubernetes.io/last-applied-configuration": test.applied,
			}})
			admin := v1alpha1.User{Name: "admin"}
			wantReason, wantChanged := NoChange, []string(nil)
			if !test.harmless {
				wantReason, wantChanged = ReservedUpdate, []string{lastAppliedPath}
			}
			got := decide(builtInPolicy(t).Review(updateOf(t, test.kind, old, new, admin)), true)
			if got.Reason != wantReason || !slices.Equal(got.Changed, wantChanged) {
				t.Errorf("written: got %s %q, want %s %q", got.Reason, got.Changed, wantReason, wantChanged)
			}
			if got := decide(builtInPolicy(t).Review(updateOf(t, test.kind, new, old, admin)), true); !got.Allowed {
				t.Errorf("removed: denied for %s", got.Reason)
			}
			if diff := cmp.Diff(wantChanged, Drift(builtIn(t, test.kind), parse(t, new))); diff != "" {
				t.Errorf("drift (-want +got)\n%s", diff)
			}
		})
	}
}

func TestNewOwnersOfSystemFieldsAreDenied(t *testing.T) {
	t.Parallel()
	item := func(manager, operation, fields string) string {
		return fmt.Sprintf(`{"manager":%q,"operation":%q,"fieldsType":"FieldsV1","fieldsV1":%s}`, manager, operation, fields)
	}
	const (
		token   = `{"f:data":{"f:token":{}}}`
		uid     = `{"f:metadata":{"f:annotations":{"f:kubernetes.io/service-account.uid":{}}}}`
		name    = `{"f:metadata":{"f:annotations":{".":{},"f:kubernetes.io/service-account.name":{}}},"f:type":{}}`
		secrets = `{"f:secrets":{}}`
	)
	controller := item("kube-controller-manager", "Update", token)
	for test, tc := range map[string]struct {
		kind, old, new string
		denied         bool
	}{
		"none":                                 {"Secret", "[]", "[]", false},
		"a manager of the manifest's fields":   {"Secret", "[]", "[" + item("kubectl", "Apply", name) + "]", false},
		"a manager that owned them before":     {"Secret", "[" + controller + "]", "[" + controller + "," + item("kubectl", "Apply", name) + "]", false},
		"the owner is dropped":                 {"Secret", "[" + controller + "]", "[]", false},
		"the token to an applier":              {"Secret", "[" + controller + "]", "[" + item("vendor", "Apply", token) + "]", true},
		"the token to an updater":              {"Secret", "[" + controller + "]", "[" + controller + "," + item("kubectl-client-side-apply", "Update", token) + "]", true},
		"the operation alone changes":          {"Secret", "[" + controller + "]", "[" + item("kube-controller-manager", "Apply", token) + "]", true},
		"the owner before-first-apply":         {"Secret", "[]", "[" + item("before-first-apply", "Update", token) + "]", false},
		"all data as one field":                {"Secret", "[]", "[" + item("vendor", "Apply", `{"f:data":{}}`) + "]", true},
		"all annotations as one field":         {"Secret", "[]", "[" + item("vendor", "Apply", `{"f:metadata":{"f:annotations":{}}}`) + "]", true},
		"the uid annotation":                   {"Secret", "[]", "[" + item("vendor", "Apply", uid) + "]", true},
		"the Secrets of an account":            {"ServiceAccount", "[]", "[" + item("vendor", "Apply", secrets) + "]", true},
		"the rules of a role are the manifest": {"ClusterRole", "[]", "[" + item("vendor", "Apply", `{"f:rules":{}}`) + "]", false},
	} {
		t.Run(test, func(t *testing.T) {
			t.Parallel()
			old := withMetadata(t, tc.kind, map[string]any{"managedFields": json.RawMessage(tc.old)})
			new := withMetadata(t, tc.kind, map[string]any{"managedFields": json.RawMessage(tc.new)})
			got := decide(builtInPolicy(t).Review(updateOf(t, tc.kind, old, new, v1alpha1.User{Name: "admin"})), true)
			if got.Allowed == tc.denied || tc.denied && !slices.Equal(got.Changed, []string{"metadata.managedFields"}) {
				t.Errorf("update: got allowed=%t %s %q", got.Allowed, got.Reason, got.Changed)
			}
			create := &Request{Operation: "CREATE", GVR: builtIn(t, tc.kind).GVR, Object: []byte(new)}
			isGiven := strings.Contains(tc.new, "kube-controller-manager") || tc.denied
			if got := decide(builtInPolicy(t).Review(create), true); got.Allowed == isGiven {
				t.Errorf("create: got allowed=%t %s", got.Allowed, got.Reason)
			}
		})
	}
}

// A write that restores a field and also makes a user the owner of a system field is not a restoration.
func TestARestorationKeepsTheOwnersOfSystemFields(t *testing.T) {
	t.Parallel()
	old := withMetadata(t, "Secret", map[string]any{"labels": map[string]any{"a": "b"}})
	poisoned := json.RawMessage(`[{"manager":"vendor","operation":"Apply","fieldsV1":{"f:data":{"f:token":{}}}}]`)
	for name, test := range map[string]struct {
		new     string
		allowed bool
	}{
		"a label is removed":                              {withMetadata(t, "Secret", nil), true},
		"a label is removed, and the token is given away": {withMetadata(t, "Secret", map[string]any{"managedFields": poisoned}), false},
	} {
		got := decide(builtInPolicy(t).Review(updateOf(t, "Secret", old, test.new, v1alpha1.User{Name: "admin"})), true)
		if got.Allowed != test.allowed {
			t.Errorf("%s: got allowed=%t %s %q", name, got.Allowed, got.Reason, got.Changed)
		}
	}
}

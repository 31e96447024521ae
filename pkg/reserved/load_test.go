// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func mustLoad(t *testing.T, dir string) *Set {
	t.Helper()
	set, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func names(set *Set) []string {
	var names []string
	for _, resource := range set.Resources() {
		names = append(names, resource.Reservation+": "+resource.String())
	}
	return names
}

func TestBuiltIn(t *testing.T) {
	t.Parallel()
	want := []string{
		"apigw-ingress: serviceaccounts/kube-system/apigw-ingress",
		"apigw-ingress: clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole",
		"apigw-ingress: clusterrolebindings.rbac.authorization.k8s.io/apigw-ingress-clusterrole-binding",
		"apigw-ingress: secrets/kube-system/apigw-ingress-token-*",
	}
	if diff := cmp.Diff(want, names(mustLoad(t, ""))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A second reservation also adds its derived resources: its account's tokens, and its namespace.
func TestLoadAddsDerivedResources(t *testing.T) {
	t.Parallel()
	want := []string{
		"edge: serviceaccounts/edge-system/edge-router",
		"edge: roles.rbac.authorization.k8s.io/edge-system/edge-router",
		"edge: configmaps/edge-system/edge-*",
		"edge: secrets/edge-system/*",
		"edge: namespaces/edge-system",
	}
	if diff := cmp.Diff(want, names(mustLoad(t, "testdata/valid"))[4:]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		is  error
		say string
	}{
		"not-yaml.yaml":                     {ErrInvalid, "line 1"},
		"unknown-field.yaml":                {ErrInvalid, `unknown field "spec.resorces"`},
		"duplicate-key.yaml":                {ErrInvalid, `"kind" already set`},
		"wrong-version.yaml":                {ErrInvalid, `apiVersion: Unsupported value: "guardian.apigw.io/v9"`},
		"no-owner.yaml":                     {ErrInvalid, "spec.owner: Required"},
		"owner-of-two-lines.yaml":           {ErrInvalid, "spec.owner: Invalid"},
		"plural-of-two-words.yaml":          {ErrInvalid, "spec.resources[0].resource: Invalid"},
		"no-resources.yaml":                 {ErrInvalid, "spec.resources: Required"},
		"no-manifest.yaml":                  {ErrInvalid, "spec.resources[0].manifest: Required"},
		"no-name.yaml":                      {ErrInvalid, "spec.resources[0].manifest.metadata.name: Required"},
		"no-namespace.yaml":                 {ErrInvalid, "spec.resources[0].manifest.metadata.namespace: Required"},
		"generated-name.yaml":               {ErrInvalid, `spec.resources[0].manifest.metadata: Unsupported value: "generateName"`},
		"prefix-not-of-name.yaml":           {ErrInvalid, "spec.resources[0].namePrefix: Invalid"},
		"token-with-data.yaml":              {ErrInvalid, "spec.resources[0].manifest.data: Forbidden"},
		"token-no-account.yaml":             {ErrInvalid, "spec.resources[0].manifest.metadata.annotations[kubernetes.io/service-account.name]: Required"},
		"with-status.yaml":                  {ErrInvalid, "spec.resources[0].manifest.status: Forbidden"},
		"two-documents.yaml":                {ErrInvalid, "2 YAML documents"},
		"two-documents-after-an-end.yaml":   {ErrInvalid, "2 YAML documents"},
		"two-documents-with-a-comment.yaml": {ErrInvalid, "2 YAML documents"},
		"empty.yaml":                        {ErrInvalid, "0 YAML documents"},
		"another-kind.yaml":                 {ErrInvalid, `kind: Unsupported value: "ConfigMap"`},
		"list.yaml":                         {ErrInvalid, `spec.resources[0].manifest.kind: Invalid value: "List"`},
		"object-without-manifest.yaml":      {ErrInvalid, "its object is the manifest"},
		"role-no-namespace.yaml":            {ErrInvalid, "spec.resources[0].manifest.metadata.namespace: Required"},
		"cluster-role-with-namespace.yaml":  {ErrInvalid, "spec.resources[0].manifest.metadata.namespace: Forbidden"},
		"secret-with-text.yaml":             {ErrInvalid, "spec.resources[0].manifest.stringData: Forbidden"},
		"label-of-a-number.yaml":            {ErrInvalid, "spec.resources[0].manifest.metadata.labels: Invalid"},
		"live-object.yaml":                  {ErrInvalid, `Unsupported value: "uid"`},
		"twice.yaml":                        {ErrOverlap, "spec.resources[1]: configmaps/b/a is already reserved"},
		"under-a-prefix.yaml":               {ErrOverlap, "spec.resources[1]: configmaps/b/a-2 is already reserved"},
		"built-in-overlap.yaml":             {ErrOverlap, `spec.resources[0]`},
		"built-in-name.yaml":                {ErrInvalid, "must reserve serviceaccounts/kube-system/apigw-ingress"},
		"notes.txt":                         {ErrInvalid, "ends in .yaml, .yml or .json"},
	}
	files, err := os.ReadDir("testdata/invalid")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(file.Name(), func(t *testing.T) {
			t.Parallel()
			test, known := tests[file.Name()]
			if !known {
				t.Fatal("no test names this file")
			}
			_, err := Load(alone(t, file.Name()))
			if !errors.Is(err, test.is) {
				t.Fatalf("got error %v, want %v", err, test.is)
			}
			for _, part := range []string{file.Name(), test.say} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
	if len(files) != len(tests) {
		t.Errorf("%d files for %d tests", len(files), len(tests))
	}
}

// alone returns a directory that contains only the file.
func alone(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "invalid", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoadOfAnAbsentDirectory(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v, want fs.ErrNotExist", err)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	secrets := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	for name, test := range map[string]struct {
		gvr  schema.GroupVersionResource
		id   Identity
		want string
	}{
		"a name under the prefix":            {secrets, Identity{"kube-system", "apigw-ingress-token-x", ""}, "apigw-ingress"},
		"any name with the account":          {secrets, Identity{"kube-system", "x", "apigw-ingress"}, "apigw-ingress"},
		"the prefix in another namespace":    {secrets, Identity{"default", "apigw-ingress-token-x", "apigw-ingress"}, ""},
		"another account's token":            {secrets, Identity{"kube-system", "x", "default"}, ""},
		"a derived token Secret":             {secrets, Identity{"edge-system", "x", "edge-router"}, "edge"},
		"another version of a reserved kind": {schema.GroupVersionResource{Version: "v2", Resource: "secrets"}, Identity{"kube-system", "apigw-ingress-token-x", ""}, "apigw-ingress"},
		"a longer name than the exact one":   {schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, Identity{"", "apigw-ingress-clusterrole-2", ""}, ""},
		"no name":                            {secrets, Identity{"kube-system", "", "apigw-ingress"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if resource := mustLoad(t, "testdata/valid").Find(test.gvr, test.id); resource != nil {
				got = resource.Reservation
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestKnowsOnlyTheExactVersion(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, "")
	if !set.Knows(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}) {
		t.Error("secrets are not known")
	}
	if set.Knows(schema.GroupVersionResource{Version: "v2", Resource: "secrets"}) {
		t.Error("a version that no manifest has is known")
	}
}

func TestAFileOfItsNameReplacesTheBuiltInReservation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	changed := bytes.Replace(builtIn, []byte("owner: API Gateway"), []byte("owner: Platform\n  exemptions:\n"+
		"  - {serviceAccount: console/editor, operations: [UPDATE], reason: the console edits the role}"), 1)
	if err := os.WriteFile(filepath.Join(dir, "apigw-ingress.yaml"), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	original, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	first := set.Reservations()[0]
	if !first.BuiltIn || first.Owner != "Platform" || len(set.Reservations()) != 1 || len(set.Resources()) != len(original.Resources()) {
		t.Errorf("got %d reservations, the first built in: %t, of %q", len(set.Reservations()), first.BuiltIn, first.Owner)
	}
	if got := set.Exemptions("apigw-ingress"); len(got) != 1 || got[0].Subject() != "serviceaccount console/editor" {
		t.Errorf("got the exemptions %v", got)
	}
}

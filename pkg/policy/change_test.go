// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	rbacvalidation "k8s.io/component-helpers/auth/rbac/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// builtIn returns the reserved resource of the built-in set that has this kind.
func builtIn(tb testing.TB, kind string) *reserved.Resource {
	tb.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		tb.Fatal(err)
	}
	for _, resource := range set.Resources() {
		if resource.Kind == kind {
			return resource
		}
	}
	tb.Fatalf("the built-in set has no %s", kind)
	return nil
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind     string
		old, new string
		want     []string
	}{
		"equal":                                   {"ClusterRole", `{"rules":[1]}`, `{"rules":[1]}`, nil},
		"absent and null":                         {"ClusterRole", `{}`, `{"x":null}`, nil},
		"null and an empty object":                {"ClusterRole", `{"x":null}`, `{"x":{}}`, nil},
		"an empty list and an empty object":       {"ClusterRole", `{"x":[]}`, `{"x":{}}`, nil},
		"an object of nothing but empty ones":     {"ClusterRole", `{}`, `{"x":{"y":[],"z":null}}`, nil},
		"an empty string is not absent":           {"ClusterRole", `{}`, `{"x":""}`, []string{"x"}},
		"false is not absent":                     {"ClusterRole", `{}`, `{"x":false}`, []string{"x"}},
		"immutable false is absent":               {"Secret", `{}`, `{"immutable":false}`, nil},
		"immutable true":                          {"Secret", `{}`, `{"immutable":true}`, []string{"immutable"}},
		"white space and escapes":                 {"ClusterRole", `{"x":"<"}`, `{ "x" : "\u003c" }`, nil},
		"bookkeeping":                             {"ClusterRole", `{}`, `{"metadata":{"managedFields":[1],"resourceVersion":"2","generation":3,"selfLink":"x","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"}}}`, nil},
		"bookkeeping elsewhere counts":            {"ClusterRole", `{}`, `{"spec":{"generation":3}}`, []string{"spec.generation"}},
		"the uid counts":                          {"ClusterRole", `{"metadata":{"uid":"a"}}`, `{"metadata":{"uid":"b"}}`, []string{"metadata.uid"}},
		"a deletionTimestamp counts":              {"ClusterRole", `{}`, `{"metadata":{"deletionTimestamp":"x"}}`, []string{"metadata.deletionTimestamp"}},
		"an unknown field counts":                 {"ClusterRole", `{}`, `{"future":{"field":1}}`, []string{"future.field"}},
		"a list inside a list":                    {"ClusterRole", `{"rules":[{"verbs":["a"]},{"verbs":["b"]}]}`, `{"rules":[{"verbs":["a"]},{"verbs":["c"]}]}`, []string{"rules[1].verbs"}},
		"lists of lists element by element":       {"ClusterRole", `{"x":[["a"],["b"]]}`, `{"x":[["a"],["c"]]}`, []string{"x[1]"}},
		"secrets that are not a list":             {"ServiceAccount", `{"secrets":{"a":{"b":1}}}`, `{"secrets":{"a":{"b":2}}}`, []string{"secrets.a.b"}},
		"a longer list":                           {"ClusterRole", `{"rules":[{"verbs":["a"]}]}`, `{"rules":[{"verbs":["a"]},{"verbs":["b"]}]}`, []string{"rules"}},
		"a list in place of an object":            {"ClusterRole", `{"x":{"a":1}}`, `{"x":[1]}`, []string{"x"}},
		"a scalar in place of an object":          {"ClusterRole", `{"x":{"a":1}}`, `{"x":1}`, []string{"x"}},
		"a removed object by its fields":          {"ClusterRole", `{"x":{"a":1,"b":{"c":2}}}`, `{}`, []string{"x.a", "x.b.c"}},
		"secrets of an account by name only":      {"ServiceAccount", `{"secrets":[{"name":"a","kind":"x"}]}`, `{"secrets":[{"name":"a"}]}`, nil},
		"another secret of an account":            {"ServiceAccount", `{"secrets":[{"name":"a"}]}`, `{"secrets":[{"name":"b"}]}`, []string{"secrets"}},
		"secrets of something else count in full": {"ClusterRole", `{"secrets":[{"name":"a","kind":"x"}]}`, `{"secrets":[{"name":"a"}]}`, []string{"secrets[0].kind"}},
		"keys with dots and slashes":              {"Secret", `{}`, `{"data":{"ca.crt":"eA=="},"metadata":{"labels":{"a/b":"c"}}}`, []string{"data[ca.crt]", "metadata.labels[a/b]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, new := parse(t, test.old), parse(t, test.new)
			resource := builtIn(t, test.kind)
			if diff := cmp.Diff(test.want, changedPaths(resource, old, new)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if there, back := len(changedPaths(resource, old, new)), len(changedPaths(resource, new, old)); there != back {
				t.Errorf("%d changes there, %d back", there, back)
			}
		})
	}
}

func changedPaths(resource *reserved.Resource, old, new rawjson.Value) []string {
	changes, _ := compareVersions(resource, old, new)
	return pathsOf(changes)
}

func parse(t *testing.T, document string) rawjson.Value {
	t.Helper()
	value, err := rawjson.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestDrift(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind string
		live func(manifest string) string
		want []string
	}{
		"the manifest itself":        {"ClusterRole", func(m string) string { return m }, nil},
		"fields of the API server":   {"ClusterRole", func(m string) string { return inMetadata(m, `"uid":"x","creationTimestamp":"y","generation":1`) }, nil},
		"a label":                    {"ClusterRole", func(m string) string { return inMetadata(m, `"labels":{"a":"b"}`) }, []string{"metadata.labels.a"}},
		"an aggregation rule":        {"ClusterRole", func(m string) string { return `{"aggregationRule":{"x":1},` + m[1:] }, []string{"aggregationRule.x"}},
		"another order of verbs":     {"ClusterRole", func(m string) string { return strings.Replace(m, `"get","list"`, `"list","get"`, 1) }, nil},
		"a verb more":                {"ClusterRole", func(m string) string { return strings.Replace(m, `"get","list"`, `"get","delete","list"`, 1) }, []string{"rules[0].verbs"}},
		"a verb that * covers":       {"ClusterRole", func(m string) string { return strings.Replace(m, `["*"]`, `["*","get"]`, 1) }, nil},
		"a filled token":             {"Secret", func(m string) string { return `{"data":{"token":"x","ca.crt":"y"},` + m[1:] }, nil},
		"a token under another name": {"Secret", func(m string) string { return strings.Replace(m, "token-guardian", "token-x", 1) }, nil},
		"a token for another account": {"Secret", func(m string) string {
			return strings.Replace(m, `account.name":"apigw-ingress"`, `account.name":"x"`, 1)
		}, []string{"metadata.annotations[kubernetes.io/service-account.name]"}},
		"a disabled token": {"Secret", func(m string) string {
			return inMetadata(m, `"labels":{"kubernetes.io/legacy-token-invalid-since":"x"}`)
		}, []string{"metadata.labels[kubernetes.io/legacy-token-invalid-since]"}},
		"the Secrets an account lists":   {"ServiceAccount", func(m string) string { return `{"secrets":[{"name":"x"}],` + m[1:] }, nil},
		"a finalizer":                    {"ServiceAccount", func(m string) string { return inMetadata(m, `"finalizers":["x"]`) }, []string{"metadata.finalizers"}},
		"another account in the binding": {"ClusterRoleBinding", func(m string) string { return strings.Replace(m, `"name":"apigw-ingress",`, `"name":"x",`, 1) }, []string{"subjects[0].name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resource := builtIn(t, test.kind)
			manifest := strings.TrimSpace(string(resource.Manifest()))
			live := test.live(manifest)
			if live == manifest && name != "the manifest itself" {
				t.Fatal("the test changes nothing")
			}
			if diff := cmp.Diff(test.want, Drift(resource, parse(t, live))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func inMetadata(manifest, fields string) string {
	return strings.Replace(manifest, `"metadata":{`, `"metadata":{`+fields+`,`, 1)
}

func TestEqualRules(t *testing.T) {
	t.Parallel()
	hostile := `[{"apiGroups":[` + many(64) + `],"resources":[` + many(64) + `],"verbs":[` + many(64) + `]}]`
	for name, test := range map[string]struct {
		a, b string
		want bool
	}{
		"in another order":          {`[{"apiGroups":[""],"resources":["a"],"verbs":["x","y"]}]`, `[{"apiGroups":[""],"resources":["a"],"verbs":["y"]},{"apiGroups":[""],"resources":["a"],"verbs":["x"]}]`, true},
		"less":                      {`[{"apiGroups":[""],"resources":["a"],"verbs":["x","y"]}]`, `[{"apiGroups":[""],"resources":["a"],"verbs":["x"]}]`, false},
		"none at all":               {`[]`, ``, true},
		"a field that is not known": {`[{"apiGroups":[""],"resources":["a"],"verbs":["x"],"future":true}]`, `[{"apiGroups":[""],"resources":["a"],"verbs":["x"]}]`, false},
		"not rules":                 {`["x"]`, `["x"]`, false},
		"too many permissions":      {hostile, hostile, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := equalRules(rawjson.Value(test.a), rawjson.Value(test.b)); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

// The API server uses the same library to prevent privilege escalation.
func TestEqualRulesAgreesWithRBAC(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	equal := 0
	for range 20_000 {
		a := randomRules(random)
		b := slices.Clone(a)
		if random.IntN(3) > 0 {
			b = randomRules(random)
		} else {
			random.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		}
		covers, _ := rbacvalidation.Covers(a, b)
		covered, _ := rbacvalidation.Covers(b, a)
		want := covers && covered
		if got := equalRules(rulesJSON(t, a), rulesJSON(t, b)); got != want {
			t.Fatalf("got %t, want %t\n%s\n%s", got, want, rulesJSON(t, a), rulesJSON(t, b))
		}
		if want {
			equal++
		}
	}
	if equal < 1000 || equal > 19_000 {
		t.Errorf("%d of 20000 pairs are equal: too one-sided to prove anything", equal)
	}
}

func randomRules(random *rand.Rand) []rbacv1.PolicyRule {
	some := func(words ...string) []string {
		var chosen []string
		for _, word := range words {
			if random.IntN(2) == 0 {
				chosen = append(chosen, word)
			}
		}
		return chosen
	}
	var rules []rbacv1.PolicyRule
	for range random.IntN(3) {
		rule := rbacv1.PolicyRule{Verbs: some("get", "*")}
		if random.IntN(4) == 0 {
			rule.NonResourceURLs = some("/healthz", "/health*", "*")
		} else {
			rule.APIGroups, rule.Resources = some("", "apps"), some("a", "a/scale", "*/scale", "*")
			if random.IntN(3) == 0 {
				rule.ResourceNames = some("x", "y")
			}
		}
		rules = append(rules, rule)
	}
	return rules
}

func rulesJSON(t *testing.T, rules []rbacv1.PolicyRule) rawjson.Value {
	t.Helper()
	data, err := json.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func many(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"x%d"`, i))
	}
	return strings.Join(list, ",")
}

func TestPathIsBoundedAndPrintable(t *testing.T) {
	t.Parallel()
	long := &path{key: []byte(strings.Repeat("k", 100_000))}
	for name, p := range map[string]*path{
		"a long key":          long,
		"a deep path":         deep(1000),
		"two long plain keys": {parent: &path{key: bytes.Repeat([]byte("k"), maxPath)}, key: bytes.Repeat([]byte("k"), maxPath)},
		"a terminal's escape": {key: []byte("\x1b[31m\n\u202e")},
		"not UTF-8":           {key: []byte{0xff, 0xfe}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := p.String()
			if len(got) > maxPath {
				t.Errorf("%d bytes", len(got))
			}
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x202e }) {
				t.Errorf("%q is not printable", got)
			}
		})
	}
}

func deep(n int) *path {
	var p *path
	for range n {
		p = &path{parent: p, key: []byte("key")}
	}
	return p
}

func TestObjectsOfManyMembers(t *testing.T) {
	t.Parallel()
	old, new := "{", "{"
	for i := range 5000 {
		old += fmt.Sprintf(`"k%d":1,`, i)
		new += fmt.Sprintf(`"k%d":1,`, 4999-i)
	}
	old, new = old+`"x":1}`, new+`"x":2}`
	got := changedPaths(builtIn(t, "ClusterRole"), parse(t, old), parse(t, new))
	if diff := cmp.Diff([]string{"x"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// node is an object whose members are compared one by one. CEL has no recursion, so that the objects of the manifest are unrolled:
// any other value is compared as a whole.
type node struct {
	at []string
	// want are the manifest's values of members that are not nodes themselves.
	want map[string]any
	// children are the members that are nodes, and other members that the comparison skips.
	children []string
	// owned are members that only the control plane writes; isOwned says that of all.
	owned   []string
	isOwned bool
}

// newNodes returns the nodes of a resource. The first is the object itself.
func newNodes(resource *reserved.Resource) []node {
	manifest := map[string]any{}
	if resource.HasManifest() {
		manifest = resource.Object().Object
	}
	must := [][]string{{"metadata"}, {"metadata", "labels"}, {"metadata", "annotations"}}
	for _, field := range resource.SystemFields() {
		if field[0] == "data" {
			must = append(must, field)
		}
	}
	nodes := unroll(nil, nil, manifest, must)
	for i := range nodes {
		switch nodes[i].path() {
		case "":
			nodes[i].children = append(nodes[i].children, "apiVersion", "kind")
		case "metadata":
			// The API server keeps name, uid and creationTimestamp, and assigns them to a new object.
			nodes[i].children = append(nodes[i].children,
				"creationTimestamp", "generation", "managedFields", "name", "resourceVersion", "selfLink", "uid")
		}
		for _, field := range resource.SystemFields() {
			nodes[i].isOwned = nodes[i].isOwned || slices.Equal(field, nodes[i].at)
			if last := len(field) - 1; slices.Equal(field[:last], nodes[i].at) {
				nodes[i].owned = append(nodes[i].owned, field[last])
			}
		}
	}
	return nodes
}

// unroll appends the nodes of an object. The metadata comes before the content, as in the paths of package policy.
func unroll(nodes []node, at []string, object map[string]any, must [][]string) []node {
	n := node{at: at, want: map[string]any{}}
	inner := map[string]map[string]any{}
	for key, value := range object {
		if member, isObject := value.(map[string]any); isObject && len(member) > 0 {
			inner[key] = member
		} else {
			n.want[key] = value
		}
	}
	for _, path := range must {
		if len(path) > len(at) && slices.Equal(path[:len(at)], at) && inner[path[len(at)]] == nil {
			inner[path[len(at)]] = map[string]any{}
			delete(n.want, path[len(at)])
		}
	}
	n.children = slices.Sorted(maps.Keys(inner))
	nodes = append(nodes, n)
	slices.SortStableFunc(n.children, func(a, b string) int {
		return strings.Compare(strings.TrimPrefix(a, "metadata"), strings.TrimPrefix(b, "metadata"))
	})
	for _, key := range n.children {
		nodes = unroll(nodes, append(slices.Clone(at), key), inner[key], must)
	}
	return nodes
}

func (n *node) path() string { return strings.Join(n.at, ".") }

// in returns the expression of the node in an object.
func (n *node) in(object string) string {
	if len(n.at) == 0 {
		return object
	}
	return object + index(n.at) + ".orValue(dyn({}))"
}

func index(path []string) string {
	var b strings.Builder
	for _, key := range path {
		b.WriteString("[?" + Quote(key) + "]")
	}
	return b.String()
}

// isEmpty is rawjson.Value.IsEmpty of an optional value.
func isEmpty(value string) string {
	return "(" + value + ".orValue(null) in [dyn(null), dyn([]), dyn({})])"
}

// same reports whether the member k means the same in two objects. The first may be a literal.
func same(a, b string) string {
	return fmt.Sprintf("(%[1]s[?k].orValue(null) == %[2]s[?k].orValue(null) || %[3]s && %[4]s)", a, b, isEmpty(a+"[?k]"), isEmpty(b+"[?k]"))
}

// declareChanges declares the variables oldN, newN and changedN of each node, and from them changed, wrong and newOwners:
//   - changed: the paths of the members that a write changes in meaning, or in which a new object differs from its manifest,
//   - wrong: whether the new value of one of them is not the manifest's,
//   - newOwners: the entries of managedFields that make a manager own a field that only the control plane writes.
func (c *compiler) declareChanges() {
	manifest := "{}"
	if c.resource.HasManifest() {
		manifest = literal(c.resource.Object().Object)
	}
	c.declareVariable("before", "request.operation == 'CREATE' ? dyn(%s) : dyn(oldObject)", manifest)
	if c.hasRules() {
		c.declareRules()
	}
	c.nodes = newNodes(c.resource)
	var paths, wrongs []string
	for i, n := range c.nodes {
		older, newer, changed := fmt.Sprintf("old%d", i), fmt.Sprintf("new%d", i), fmt.Sprintf("changed%d", i)
		c.declareVariable(older, "%s", n.in("variables.before"))
		c.declareVariable(newer, "%s", n.in("object"))
		older, newer = "variables."+older, "variables."+newer
		equal := append([]string{same(older, newer)}, c.equalAnyway(&n, older, newer)...)
		c.declareVariable(changed, "(%[2]s.map(k, k) + %[1]s.map(k, k).filter(k, !(k in %[2]s))).filter(k, !(k in %[3]s) && !(%[4]s))",
			older, newer, quoteAll(n.children), strings.Join(equal, " || "))
		paths = append(paths, fmt.Sprintf("variables.%s.map(k, %s)", changed, pathOf(n.path())))
		if restored := c.restored(&n, newer); restored == "false" {
			wrongs = append(wrongs, fmt.Sprintf("variables.%s.size() > 0", changed))
		} else {
			wrongs = append(wrongs, fmt.Sprintf("variables.%s.exists(k, !(%s))", changed, restored))
		}
	}
	c.declareVariable("changed", "%s", strings.Join(paths, " + "))
	c.declareVariable("wrong", "%s", strings.Join(wrongs, " || "))
	c.declareOwners()
}

// pathOf is the path of the member k as package policy writes it.
func pathOf(parent string) string {
	dot := ""
	if parent != "" {
		dot = "."
	}
	return fmt.Sprintf("k.matches('^[a-zA-Z0-9_-]+$') ? %s + k : %s + k + ']'", Quote(parent+dot), Quote(parent+"["))
}

// equalAnyway returns the special cases in which the comparison ignores a difference of the member k.
func (c *compiler) equalAnyway(n *node, older, newer string) []string {
	var cases []string
	switch n.path() {
	case "":
		cases = append(cases, fmt.Sprintf("k == 'immutable' && %s[?k].orValue(false) == %s[?k].orValue(false)", newer, older))
		if c.resource.IsServiceAccount() {
			names := "[?k].orValue(dyn([])).map(s, s[?'name'].orValue(''))"
			cases = append(cases, "k == 'secrets' && "+newer+names+" == "+older+names)
		}
		if c.hasRules() {
			cases = append(cases, "k == 'rules' && request.operation == 'CREATE' && variables.equalRules")
		}
	case "metadata.annotations":
		cases = append(cases, fmt.Sprintf("k == %s && %s[?k].orValue('') in %s",
			Quote(corev1.LastAppliedConfigAnnotation), newer, quoteAll(lastApplied(c.resource))))
	}
	return cases
}

// lastApplied returns the texts of the annotation last-applied-configuration that a policy accepts: none, and what `kubectl apply`
// writes for the manifest. CEL cannot read JSON, so that it compares the text.
func lastApplied(resource *reserved.Resource) []string {
	texts := []string{"", "{}"}
	if !resource.HasManifest() {
		return texts
	}
	object := resource.Object()
	for range 2 {
		var text bytes.Buffer
		if json.NewEncoder(&text).Encode(object.Object) == nil { // it ends in a line break, as kubectl's does
			texts = append(texts, text.String(), strings.TrimSuffix(text.String(), "\n"))
		}
		if len(object.GetAnnotations()) > 0 {
			break
		}
		_ = unstructured.SetNestedMap(object.Object, map[string]any{}, "metadata", "annotations") // kubectl adds it
	}
	return texts
}

// restored reports whether the new value of the changed member k is the manifest's; "false" if it is in no case.
func (c *compiler) restored(n *node, newer string) string {
	if !c.resource.HasManifest() || n.isOwned {
		return "false"
	}
	expression := same("dyn("+literal(n.want)+")", newer)
	if len(n.at) == 0 && c.hasRules() {
		expression = "k == 'rules' ? variables.equalRules : " + expression
	}
	if len(n.owned) > 0 {
		expression = fmt.Sprintf("!(k in %s) && (%s)", quoteAll(n.owned), expression)
	}
	return expression
}

// declareOwners is newOwners of package policy.
func (c *compiler) declareOwners() {
	if len(c.resource.SystemFields()) == 0 {
		c.declareVariable("newOwners", "[]")
		return
	}
	var fields []string
	for _, field := range c.resource.SystemFields() {
		fields = append(fields, owns("%[1]s[?'fieldsV1']", field))
	}
	owns := "(" + strings.Join(fields, " || ") +
		") && !(%[1]s[?'manager'].orValue('') == 'before-first-apply' && %[1]s[?'operation'].orValue('') == 'Update')"
	const isSame = "o[?'manager'] == m[?'manager'] && o[?'operation'] == m[?'operation']"
	c.declareVariable("newOwners", "%s.filter(m, %s && !%s.exists(o, "+isSame+" && %s))",
		managedFields("object"), fmt.Sprintf(owns, "m"), managedFields("variables.before"), fmt.Sprintf(owns, "o"))
}

func managedFields(object string) string {
	return object + "[?'metadata'][?'managedFields'].orValue(dyn([]))"
}

func owns(fields string, path []string) string {
	inner := fields + "[?" + Quote("f:"+path[0]) + "]"
	if len(path) == 1 {
		return inner + ".hasValue()"
	}
	return fmt.Sprintf("%s.hasValue() && (%s || %s)", inner, isEmpty(inner), owns(inner, path[1:]))
}

func (c *compiler) hasRules() bool {
	return c.resource.GVR.Group == "rbac.authorization.k8s.io" && c.resource.Manifest().Get("rules").IsArray()
}

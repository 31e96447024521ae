// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// maxSimpleRules is the max number of single permissions in a list of rules that is compared. One rule multiplies its groups,
// resources, names and verbs: a role that fits into etcd can have billions. The built-in manifest has 41.
const maxSimpleRules = 1024

// maxRulesBytes is the max size of a list of rules that is compared, in bytes of JSON: the time is quadratic. The built-in
// manifest takes 1 kB.
const maxRulesBytes = 64 << 10

// equalRules reports whether two lists of RBAC rules grant the same permissions. It ignores their order, and how permissions are
// split into rules. It returns false if a rule has an unknown field, or if there are too many rules.
//
// A test compares it with k8s.io/component-helpers/auth/rbac/validation. That library decodes and multiplies out all rules, which
// takes 30 times as long as the whole decision. This function multiplies out only the rules that differ.
func equalRules(a, b rawjson.Value) bool {
	as, readableA := readRules(a)
	bs, readableB := readRules(b)
	return readableA && readableB && coverAll(as, bs) && coverAll(bs, as)
}

// rule is one RBAC rule. Its lists are JSON.
type rule struct {
	groups, resources, names, urls, verbs rawjson.Value
}

// readRules returns the rules of a list, and whether they can be compared.
func readRules(list rawjson.Value) ([]rule, bool) {
	if list.IsEmpty() {
		return nil, true
	}
	if len(list) > maxRulesBytes {
		return nil, false
	}
	rules := make([]rule, 0, usualElements)
	total := 0
	for element := range list.Elements() {
		r, known := readRule(element)
		if total += r.simpleRules(); !known || total > maxSimpleRules || len(rules) > maxSimpleRules {
			return nil, false
		}
		rules = append(rules, r)
	}
	return rules, list.IsArray()
}

// readRule returns known as false for a rule with an unknown field: a newer API server could use it to narrow or widen the rule.
func readRule(element rawjson.Value) (r rule, known bool) {
	for key, value := range element.Members() {
		switch string(key) {
		case "apiGroups":
			r.groups = value
		case "resources":
			r.resources = value
		case "resourceNames":
			r.names = value
		case "nonResourceURLs":
			r.urls = value
		case "verbs":
			r.verbs = value
		default:
			return r, false
		}
	}
	return r, element.IsObject()
}

// simpleRules returns the number of single permissions of a rule. Above maxSimpleRules, the number is not exact.
func (r rule) simpleRules() int {
	product := 1
	for _, n := range [...]int{length(r.groups), length(r.resources), max(1, length(r.names)), length(r.verbs)} {
		product = min(product*n, maxSimpleRules+1)
	}
	return product + min(length(r.urls)*length(r.verbs), maxSimpleRules+1)
}

func length(list rawjson.Value) int {
	n := 0
	for range list.Elements() {
		n++
	}
	return n
}

func (r rule) isSame(other rule) bool {
	return bytes.Equal(r.groups, other.groups) && bytes.Equal(r.resources, other.resources) &&
		bytes.Equal(r.names, other.names) && bytes.Equal(r.urls, other.urls) && bytes.Equal(r.verbs, other.verbs)
}

// coverAll reports whether the owners grant every single permission of the rules.
func coverAll(owners, rules []rule) bool {
	for i, r := range rules {
		if i < len(owners) && owners[i].isSame(r) {
			continue
		}
		if !coversResources(owners, r) || !coversURLs(owners, r) {
			return false
		}
	}
	return true
}

func coversResources(owners []rule, r rule) bool {
	var groups, resources, verbs [usualElements]rawjson.Value // on the stack, for rules of a usual size
	verbList := elements(verbs[:0], r.verbs)
	resourceList := elements(resources[:0], r.resources)
	for _, group := range elements(groups[:0], r.groups) {
		for _, resource := range resourceList {
			for _, verb := range verbList {
				if !coversNames(owners, r.names, permission{group: group, resource: resource, verb: verb}) {
					return false
				}
			}
		}
	}
	return true
}

// usualElements is the max number of elements in most lists of a rule.
const usualElements = 8

// elements appends the elements of a list, and stops after one more than maxMembers.
func elements(to []rawjson.Value, list rawjson.Value) []rawjson.Value {
	for element := range list.Elements() {
		if len(to) > maxMembers {
			break
		}
		to = append(to, element)
	}
	return to
}

// permission is one verb on one resource. An absent name means every name.
type permission struct {
	group, resource, verb, name rawjson.Value
}

func coversNames(owners []rule, names rawjson.Value, p permission) bool {
	if names.IsEmpty() {
		return slices.ContainsFunc(owners, p.isGrantedBy)
	}
	for name := range names.Elements() {
		p.name = name
		if !slices.ContainsFunc(owners, p.isGrantedBy) {
			return false
		}
	}
	return true
}

func (p permission) isGrantedBy(owner rule) bool {
	return hasOrAny(owner.verbs, p.verb) && hasOrAny(owner.groups, p.group) && hasResource(owner.resources, p.resource) &&
		(owner.names.IsEmpty() || len(p.name) > 0 && has(owner.names, p.name))
}

// hasResource reports whether the list has the resource. "*" is every resource and subresource, "*/scale" the subresource scale
// of every resource.
func hasResource(list, resource rawjson.Value) bool {
	if hasOrAny(list, resource) {
		return true
	}
	_, subresource, found := strings.Cut(resource.Text(), "/")
	for element := range list.Elements() {
		if found && element.TextIs("*/"+subresource) {
			return true
		}
	}
	return false
}

func coversURLs(owners []rule, r rule) bool {
	for url := range r.urls.Elements() {
		for verb := range r.verbs.Elements() {
			if !slices.ContainsFunc(owners, func(owner rule) bool {
				return hasOrAny(owner.verbs, verb) && hasURL(owner.urls, url.Text())
			}) {
				return false
			}
		}
	}
	return true
}

// hasURL reports whether the list has the URL. A trailing "*" matches every end.
func hasURL(list rawjson.Value, url string) bool {
	for element := range list.Elements() {
		pattern := element.Text()
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		if pattern == url || isPrefix && strings.HasPrefix(url, prefix) {
			return true
		}
	}
	return false
}

func has(list, value rawjson.Value) bool {
	for element := range list.Elements() {
		if rawjson.EqualText(element, value) {
			return true
		}
	}
	return false
}

func hasOrAny(list, value rawjson.Value) bool {
	for element := range list.Elements() {
		if element.TextIs("*") || rawjson.EqualText(element, value) {
			return true
		}
	}
	return false
}

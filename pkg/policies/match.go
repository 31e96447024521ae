// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// MatchConditions limit a webhook or a policy to the reserved names, inside the API server.
//
// Under failurePolicy Fail, an error of a condition refuses the request, so that each checks that a field exists before it reads it.
// None reads request.name: an item of a DELETECOLLECTION has no name, and an error would refuse every deletecollection of the kind in
// the cluster. None reads request.namespace of a cluster-scoped kind, which has none.
func MatchConditions(group []*reserved.Resource) []admissionregistrationv1.MatchCondition {
	conditions := []admissionregistrationv1.MatchCondition{{Name: ReservedObject, Expression: reservedObjectExpression(group)}}
	if slices.ContainsFunc(group, (*reserved.Resource).IsTokenSecret) {
		conditions = append(conditions, admissionregistrationv1.MatchCondition{
			Name: "not-last-used-label", Expression: notLastUsedLabel,
		})
	}
	return conditions
}

// ReservedObject is the name of the condition that lists the names.
const ReservedObject = "reserved-object"

// reservedObjectExpression is reserved.Resource.Covers in CEL, for any of the resources. Tests compare the two over the corpus.
//
// The namespace and the name are one key, so that one list holds them all: CEL looks a key up in a list of literals in constant time. A
// prefix is looked up so too, once for each length: to try startsWith for 50 prefixes would take 90 us.
// The API server evaluates every condition of a webhook. The namespace is in the same condition as the names, so that a write to any
// other namespace costs no more.
func reservedObjectExpression(group []*reserved.Resource) string {
	const name, account = "o.metadata.name", "o.metadata.annotations['" + corev1.ServiceAccountNameKey + "']"
	var names, prefixes, accounts, namespaces, covers []string
	for _, resource := range group {
		k := KeysOf(resource)
		names, prefixes, accounts = append(names, k.Names...), append(prefixes, k.Prefixes...), append(accounts, k.Accounts...)
		if resource.Namespace != "" && !slices.Contains(namespaces, resource.Namespace) {
			namespaces = append(namespaces, resource.Namespace)
		}
	}
	inNamespace, within := "", ""
	if len(namespaces) > 0 {
		inNamespace, within = "request.namespace + '/' + ", "request.namespace in "+quoteAll(namespaces)+" && "
	}
	if len(names) > 0 {
		covers = append(covers, inNamespace+name+" in "+quoteAll(names))
	}
	if len(prefixes) > 0 {
		covers = append(covers, fmt.Sprintf("[%s].exists(k, %s.exists(n, k.size() >= n && k.substring(0, n) in %s))",
			inNamespace+name, strings.ReplaceAll(fmt.Sprint(LengthsOf(prefixes)), " ", ", "), quoteAll(prefixes)))
	}
	if len(accounts) > 0 {
		covers = append(covers, fmt.Sprintf("has(o.metadata.annotations) && '%s' in o.metadata.annotations && %s in %s",
			corev1.ServiceAccountNameKey, inNamespace+account, quoteAll(accounts)))
	}
	return fmt.Sprintf("%s[object, oldObject].exists(o, o != null && (%s))", within, strings.Join(covers, " || "))
}

// Keys are the names by which a resource is reserved, as "namespace/name", or as "name" if it has no namespace.
type Keys struct{ Names, Prefixes, Accounts []string }

// KeysOf returns the keys of a resource.
func KeysOf(resource *reserved.Resource) Keys {
	var k Keys
	of := func(name string) string {
		if resource.Namespace == "" {
			return name
		}
		return resource.Namespace + "/" + name
	}
	hasPrefix := resource.NamePrefix != "" && strings.HasPrefix(resource.Name, resource.NamePrefix)
	if resource.Name != "" && !hasPrefix {
		k.Names = append(k.Names, of(resource.Name))
	}
	if resource.NamePrefix != "" {
		k.Prefixes = append(k.Prefixes, of(resource.NamePrefix))
	}
	if resource.Account != "" {
		k.Accounts = append(k.Accounts, of(resource.Account))
	}
	return k
}

// LengthsOf returns the lengths of texts, each once, in code points as CEL counts them.
func LengthsOf(texts []string) []int {
	var lengths []int
	for _, text := range texts {
		lengths = append(lengths, utf8.RuneCountInString(text))
	}
	slices.Sort(lengths)
	return slices.Compact(lengths)
}

// Rule selects the requests about a group of resources of one kind that are guarded against the same operations.
func Rule(group []*reserved.Resource) admissionregistrationv1.RuleWithOperations {
	operations := []admissionregistrationv1.OperationType{
		admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete,
	}
	if IsExistence(group[0]) {
		operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Delete}
	}
	scope := admissionregistrationv1.ClusterScope
	if group[0].Namespace != "" {
		scope = admissionregistrationv1.NamespacedScope
	}
	return admissionregistrationv1.RuleWithOperations{
		Operations: operations,
		Rule: admissionregistrationv1.Rule{
			APIGroups:   []string{group[0].GVR.Group},
			APIVersions: []string{group[0].GVR.Version},
			Resources:   resources(group),
			Scope:       new(scope),
		},
	}
}

// resources adds the subresource that edits a spec under another name. If a kind has none, the rule matches nothing.
func resources(group []*reserved.Resource) []string {
	names := []string{group[0].GVR.Resource}
	if slices.ContainsFunc(group, func(r *reserved.Resource) bool { return r.Manifest().Get("spec").IsObject() }) {
		names = append(names, group[0].GVR.Resource+"/scale")
	}
	return names
}

// IsExistence reports whether only the deletion of the resource is denied.
func IsExistence(resource *reserved.Resource) bool { return resource.Guard == reserved.GuardExistence }

const lastUsedLabel = reserved.LastUsedLabel

// notLastUsedLabel lets the API server note the day of a token's last use without a call to the guard. The API server makes this write
// while it authenticates the caller, so that a slow guard would slow every call with the token. Any client may impersonate the API
// server. So the condition compares all fields of the Secret, and not a list of fields that a newer Kubernetes may add to. Only these
// may differ:
//   - metadata.resourceVersion,
//   - the label, whose new value must be a date: v1.37 writes time.Now().UTC().Format("2006-01-02"),
//   - the entries of metadata.managedFields that own nothing but the label by an update. The API server's own write makes such
//     an entry. All other entries must stay as they are.
//
// It may skip only writes that the policy takes for a system write or no change: e2e/matchconditions compares the two.
const notLastUsedLabel = `!(request.operation == 'UPDATE' && request.userInfo.username == 'system:apiserver'` +
	` && has(request.userInfo.groups) && 'system:masters' in request.userInfo.groups` +
	` && object.all(k, k == 'metadata' || (k in oldObject && object[k] == oldObject[k]))` +
	` && oldObject.all(k, k in object)` +
	` && object.metadata.all(k, k in ['labels', 'managedFields', 'resourceVersion']` +
	` || (k in oldObject.metadata && object.metadata[k] == oldObject.metadata[k]))` +
	` && oldObject.metadata.all(k, k in ['labels', 'managedFields', 'resourceVersion'] || k in object.metadata)` +
	` && (!has(object.metadata.labels) || object.metadata.labels.all(k,` +
	` (k == '` + lastUsedLabel + `' && object.metadata.labels[k].matches('` + policy.DatePattern + `')) || (has(oldObject.metadata.labels)` +
	` && k in oldObject.metadata.labels && oldObject.metadata.labels[k] == object.metadata.labels[k])))` +
	` && (!has(oldObject.metadata.labels) || (has(object.metadata.labels)` +
	` && oldObject.metadata.labels.all(k, k in object.metadata.labels)))` +
	` && (!has(object.metadata.managedFields) || object.metadata.managedFields.all(m,` +
	` (has(oldObject.metadata.managedFields) && m in oldObject.metadata.managedFields) || ` + ownsLabelOnly + `))` +
	` && (!has(oldObject.metadata.managedFields) || oldObject.metadata.managedFields.all(m,` +
	` (has(object.metadata.managedFields) && m in object.metadata.managedFields) || ` + ownsLabelOnly + `)))`

// ownsLabelOnly holds for an entry m of managedFields that owns the label, and perhaps that there are labels, by an update. An
// owner by apply, or one whose entry kubectl turns into that, may remove the label later.
const ownsLabelOnly = `(has(m.operation) && m.operation == 'Update' && has(m.manager) && !m.manager.startsWith('kubectl')` +
	` && m.manager != 'before-first-apply' && !has(m.subresource) && has(m.fieldsV1)` +
	` && (m.fieldsV1 == {'f:metadata': {'f:labels': {'f:` + lastUsedLabel + `': {}}}}` +
	` || m.fieldsV1 == {'f:metadata': {'f:labels': {'.': {}, 'f:` + lastUsedLabel + `': {}}}}))`

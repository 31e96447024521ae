// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// matchConditions narrow an entry to the reserved names, inside the API server.
//
// They read the metadata of object and oldObject and never request.name: an item of a DELETECOLLECTION has none, the
// expression would fail, and every deletecollection of the kind in the cluster with it. Nor do they read request.namespace
// of a cluster-scoped kind, which has none. An error of any of them is a refusal under failurePolicy Fail, so that each
// field is asked for before it is read.
func matchConditions(group []*reserved.Resource) []admissionregistrationv1.MatchCondition {
	var conditions []admissionregistrationv1.MatchCondition
	namespaces := namespacesOf(group)
	if len(namespaces) > 0 {
		conditions = append(conditions, admissionregistrationv1.MatchCondition{
			Name:       "reserved-namespace",
			Expression: fmt.Sprintf("request.namespace in [%s]", strings.Join(namespaces, ", ")),
		})
	}
	var covers []string
	for _, resource := range group {
		expression := covered(resource)
		if len(namespaces) > 1 {
			expression = fmt.Sprintf("request.namespace == %s && (%s)", quote(resource.Namespace), expression)
		}
		covers = append(covers, expression)
	}
	conditions = append(conditions, admissionregistrationv1.MatchCondition{
		Name:       "reserved-object",
		Expression: fmt.Sprintf("[object, oldObject].exists(o, o != null && (%s))", strings.Join(covers, " || ")),
	})
	if slices.ContainsFunc(group, (*reserved.Resource).IsTokenSecret) {
		conditions = append(conditions, admissionregistrationv1.MatchCondition{
			Name: "not-last-used-label", Expression: notLastUsedLabel,
		})
	}
	return conditions
}

func namespacesOf(group []*reserved.Resource) []string {
	var namespaces []string
	for _, resource := range group {
		if literal := quote(resource.Namespace); resource.Namespace != "" && !slices.Contains(namespaces, literal) {
			namespaces = append(namespaces, literal)
		}
	}
	return namespaces
}

// covered says in CEL what reserved.Resource.Covers says in Go; the corpus holds the two together.
func covered(resource *reserved.Resource) string {
	var names []string
	if resource.Name != "" && !strings.HasPrefix(resource.Name, prefixOrNever(resource)) {
		names = append(names, "o.metadata.name == "+quote(resource.Name))
	}
	if resource.NamePrefix != "" {
		names = append(names, "o.metadata.name.startsWith("+quote(resource.NamePrefix)+")")
	}
	if resource.Account != "" {
		key := quote(corev1.ServiceAccountNameKey)
		names = append(names, fmt.Sprintf("has(o.metadata.annotations) && %s in o.metadata.annotations && o.metadata.annotations[%s] == %s",
			key, key, quote(resource.Account)))
	}
	return strings.Join(names, " || ")
}

// prefixOrNever returns the prefix that makes the exact name superfluous, or what no name starts with.
func prefixOrNever(resource *reserved.Resource) string {
	if resource.NamePrefix != "" {
		return resource.NamePrefix
	}
	return "/"
}

// quote writes a CEL string literal.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// notLastUsedLabel lets the API server note on which day a token was last used without asking the guard. It makes this
// write while it authenticates the bearer, so that a slow guard would slow every call of whoever holds the token. All else
// of the Secret must stay as it is: anyone may impersonate the user.
const notLastUsedLabel = `!(request.operation == 'UPDATE' && request.userInfo.username == 'system:apiserver'` +
	` && has(request.userInfo.groups) && 'system:masters' in request.userInfo.groups` +
	` && object.type == oldObject.type` +
	` && (has(object.data) ? object.data : {}) == (has(oldObject.data) ? oldObject.data : {})` +
	` && (has(object.immutable) && object.immutable) == (has(oldObject.immutable) && oldObject.immutable)` +
	` && (has(object.metadata.annotations) ? object.metadata.annotations : {})` +
	` == (has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {})` +
	` && (has(object.metadata.ownerReferences) ? object.metadata.ownerReferences : [])` +
	` == (has(oldObject.metadata.ownerReferences) ? oldObject.metadata.ownerReferences : [])` +
	` && (has(object.metadata.finalizers) ? object.metadata.finalizers : [])` +
	` == (has(oldObject.metadata.finalizers) ? oldObject.metadata.finalizers : [])` +
	` && (has(object.metadata.labels) ? object.metadata.labels : {}).all(k,` +
	` k == 'kubernetes.io/legacy-token-last-used' || (has(oldObject.metadata.labels) && k in oldObject.metadata.labels` +
	` && oldObject.metadata.labels[k] == object.metadata.labels[k]))` +
	` && (has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}).all(k,` +
	` has(object.metadata.labels) && k in object.metadata.labels))`

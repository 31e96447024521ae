// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"encoding/json"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const roleKind = "Role"

func isRBAC(resource *reserved.Resource, kinds ...string) bool {
	return resource.HasManifest() && resource.GVR.Group == rbacv1.GroupName && slices.Contains(kinds, resource.Kind)
}

func isRole(resource *reserved.Resource) bool { return isRBAC(resource, "ClusterRole", roleKind) }

func isBinding(resource *reserved.Resource) bool {
	return isRBAC(resource, "ClusterRoleBinding", "RoleBinding")
}

// readBinding reads both kinds of bindings. For an invalid manifest, which the API server refuses, it returns the zero value.
func readBinding(resource *reserved.Resource) rbacv1.RoleBinding {
	var b rbacv1.RoleBinding
	if json.Unmarshal(resource.Manifest(), &b) != nil {
		return rbacv1.RoleBinding{}
	}
	return b
}

// grants returns the permissions of a token Secret's account from the reservation's own roles and bindings; nil for none.
func grants(reservation *reserved.Reservation, secret *reserved.Resource) []permission {
	isAccount := func(s rbacv1.Subject) bool {
		return s.Kind == rbacv1.ServiceAccountKind && s.Namespace == secret.Namespace && s.Name == secret.Account
	}
	var all []permission
	for _, resource := range reservation.Resources {
		if !isBinding(resource) {
			continue
		}
		if b := readBinding(resource); slices.ContainsFunc(b.Subjects, isAccount) {
			for _, rule := range rulesOf(reservation, resource, b.RoleRef) {
				all = union(all, permissionsOf(rule, resource.Namespace)...)
			}
		}
	}
	return all
}

// rulesOf returns the rules of the role that a binding refers to; nil if the role is not part of the reservation.
func rulesOf(reservation *reserved.Reservation, binding *reserved.Resource, ref rbacv1.RoleRef) []rbacv1.PolicyRule {
	for _, resource := range reservation.Resources {
		isBound := isRole(resource) && resource.Kind == ref.Kind && resource.Name == ref.Name &&
			(ref.Kind != roleKind || resource.Namespace == binding.Namespace)
		var role rbacv1.ClusterRole
		if isBound && json.Unmarshal(resource.Manifest(), &role) == nil {
			return role.Rules
		}
	}
	return nil
}

// permissionsOf returns each single permission of a rule. A rule that is bound in a namespace grants no paths.
func permissionsOf(rule rbacv1.PolicyRule, namespace string) []permission {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var all []permission
	for _, group := range rule.APIGroups {
		for _, both := range rule.Resources {
			resource, subresource, _ := strings.Cut(both, "/")
			for _, verb := range rule.Verbs {
				for _, name := range names {
					all = append(all, permission{verb, group, resource, subresource, namespace, name, ""})
				}
			}
		}
	}
	if namespace != "" {
		return all
	}
	for _, url := range rule.NonResourceURLs {
		for _, verb := range rule.Verbs {
			all = append(all, permission{verb: verb, url: url})
		}
	}
	return all
}

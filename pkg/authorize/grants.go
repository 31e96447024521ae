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

// The kinds of the group rbac.authorization.k8s.io.
const (
	clusterRoleKind = "ClusterRole"
	roleKind        = "Role"
)

func isRBAC(entry *reserved.Resource, kinds ...string) bool {
	return entry.HasManifest() && entry.GVR.Group == rbacv1.GroupName && slices.Contains(kinds, entry.Kind)
}

func isRole(entry *reserved.Resource) bool { return isRBAC(entry, clusterRoleKind, roleKind) }

func isBinding(entry *reserved.Resource) bool {
	return isRBAC(entry, "ClusterRoleBinding", "RoleBinding")
}

// binding is what both kinds of bindings have in common.
type binding struct {
	RoleRef  rbacv1.RoleRef   `json:"roleRef"`
	Subjects []rbacv1.Subject `json:"subjects"`
}

// readBinding returns the zero binding, which binds nothing, for a manifest that is none: the API server refuses it.
func readBinding(entry *reserved.Resource) binding {
	var b binding
	if json.Unmarshal(entry.Manifest(), &b) != nil {
		return binding{}
	}
	return b
}

func (b binding) binds(account *reserved.Resource) bool {
	return slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool {
		return s.Kind == rbacv1.ServiceAccountKind && s.Namespace == account.Namespace && s.Name == account.Account
	})
}

// grants returns what the roles of a reservation, bound by its own bindings, give to the account of a token Secret; nil
// where no reserved role does.
func grants(reservation *reserved.Reservation, secret *reserved.Resource) []permission {
	var all permissionList
	for _, entry := range reservation.Resources {
		if !isBinding(entry) {
			continue
		}
		if b := readBinding(entry); b.binds(secret) {
			for _, rule := range rulesOf(reservation, entry, b.RoleRef) {
				all.addRule(rule, entry.Namespace)
			}
		}
	}
	return all.list
}

// rulesOf returns the rules of the role that a binding names; nil where the role is not of the reservation.
func rulesOf(reservation *reserved.Reservation, bound *reserved.Resource, ref rbacv1.RoleRef) []rbacv1.PolicyRule {
	for _, entry := range reservation.Resources {
		if !isRBAC(entry, ref.Kind) || !isRole(entry) || entry.Name != ref.Name {
			continue
		}
		if ref.Kind == roleKind && entry.Namespace != bound.Namespace {
			continue
		}
		var role struct {
			Rules []rbacv1.PolicyRule `json:"rules"`
		}
		if json.Unmarshal(entry.Manifest(), &role) == nil {
			return role.Rules
		}
	}
	return nil
}

// addRule adds each single permission of a rule. A rule that is bound in a namespace grants no paths.
func (l *permissionList) addRule(rule rbacv1.PolicyRule, namespace string) {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, group := range rule.APIGroups {
		for _, both := range rule.Resources {
			resource, subresource, _ := strings.Cut(both, "/")
			for _, verb := range rule.Verbs {
				for _, name := range names {
					l.add(permission{verb, group, resource, subresource, namespace, name, ""})
				}
			}
		}
	}
	if namespace != "" {
		return
	}
	for _, url := range rule.NonResourceURLs {
		for _, verb := range rule.Verbs {
			l.add(permission{verb: verb, url: url})
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// permission is one permission with RBAC's fields, in which "*" means all. It is comparable.
type permission struct {
	verb, group, resource, subresource string
	// namespace is empty for a cluster-scoped resource, and for all namespaces.
	namespace string
	// name is empty for all names.
	name string
	// url is a path that is not a resource; group to name are empty then.
	url string
}

// String writes the permission as arguments of "kubectl auth can-i":
//
//	patch secrets/some-name -n some-namespace
//	update ingresses.extensions --subresource=status
func (p permission) String() string {
	if p.url != "" {
		return p.verb + " " + p.url
	}
	text := p.verb + " " + p.resource
	if p.group != "" {
		text += "." + p.group
	}
	if p.name != "" {
		text += "/" + p.name
	}
	if p.subresource != "" {
		text += " --subresource=" + p.subresource
	}
	if p.namespace != "" {
		text += " -n " + p.namespace
	}
	return text
}

func join(permissions []permission) string {
	texts := make([]string, len(permissions))
	for i, p := range permissions {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

func (p permission) review() *authorizationv1.SelfSubjectAccessReview {
	review := &authorizationv1.SelfSubjectAccessReview{}
	if p.url != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: p.url, Verb: p.verb}
		return review
	}
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: p.namespace, Name: p.name, Verb: p.verb,
		Group: p.group, Resource: p.resource, Subresource: p.subresource,
	}
	return review
}

// missing returns the permissions that the client's user lacks, in their order.
func missing(ctx context.Context, client kubernetes.Interface, permissions []permission) ([]permission, error) {
	isAllowed, errs := make([]bool, len(permissions)), make([]error, len(permissions))
	live.Each(len(permissions), func(i int) {
		p := permissions[i]
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, p.review(), metav1.CreateOptions{})
		if err != nil {
			errs[i] = fmt.Errorf("review the permission %q: %w", p, err)
			return
		}
		isAllowed[i] = review.Status.Allowed
	})
	if err := cmp.Or(errs...); err != nil {
		return nil, err
	}
	var lacking []permission
	for i, p := range permissions {
		if !isAllowed[i] {
			lacking = append(lacking, p)
		}
	}
	return lacking, nil
}

func union(list []permission, more ...permission) []permission {
	for _, p := range more {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

const adminRemedy = "Obtain the admin role in the TKE console: cluster, Authorization management, ClusterRole, Obtain " +
	"cluster admin role (tke:admin). Or ask an administrator for these permissions; each is written as arguments of " +
	"kubectl auth can-i."

func (a *Authorizer) checkAdminRole(ctx context.Context) Check {
	lacking, err := missing(ctx, a.cluster.Client, append(applyPermissions(a.cluster.Set), a.notePermissions()...))
	switch {
	case err != nil:
		return unknown(err.Error(), "Try again. If a permission is missing, authorize fails at the first write that needs it.")
	case len(lacking) > 0:
		return fail("missing permissions: "+join(lacking), adminRemedy)
	}
	// The apply does not need the permissions to find an older token Secret.
	check := pass("you may apply the reserved resources")
	if lacking, err = missing(ctx, a.cluster.Client, listPermissions(a.cluster.Set)); err != nil {
		check.Message += "; " + err.Error()
	} else if len(lacking) > 0 {
		check.Message += "; without permission to " + join(lacking) +
			", older token Secrets are found only if the ServiceAccount refers to them"
	}
	return check
}

// applyPermissions returns what applying a set needs. A server-side apply is a PATCH, so even a creation is authorized by name.
func applyPermissions(set *reserved.Set) []permission {
	var all []permission
	for _, resource := range set.WithManifest() {
		all = union(all, on(resource, "get"), on(resource, "create"), on(resource, "patch"))
		switch {
		case isRole(resource):
			all = union(all, on(resource, "escalate"))
		case isBinding(resource):
			all = union(all, bindPermission(resource))
		case resource.IsTokenSecret():
			all = union(all, permission{verb: "get", resource: "serviceaccounts", namespace: resource.Namespace, name: resource.Account})
		}
	}
	return all
}

func on(r *reserved.Resource, verb string) permission {
	return permission{verb: verb, group: r.GVR.Group, resource: r.GVR.Resource, namespace: r.Namespace, name: r.Name}
}

// bindPermission is what a user needs to bind a role without holding its permissions.
func bindPermission(binding *reserved.Resource) permission {
	ref := readBinding(binding).RoleRef
	p := permission{verb: "bind", group: rbacv1.GroupName, resource: "clusterroles", name: ref.Name}
	if ref.Kind == roleKind {
		p.resource, p.namespace = "roles", binding.Namespace
	}
	return p
}

// listPermissions returns what finding an older token Secret needs.
func listPermissions(set *reserved.Set) []permission {
	var all []permission
	for _, r := range set.WithManifest() {
		if r.IsTokenSecret() && r.NamePrefix != "" {
			all = union(all, permission{verb: "list", resource: "secrets", namespace: r.Namespace})
		}
	}
	return all
}

// notePermissions returns what noteInUse needs; nil if it writes nothing.
func (a *Authorizer) notePermissions() []permission {
	if a.cluster.Namespace == "" || !slices.ContainsFunc(a.cluster.Set.WithManifest(), (*reserved.Resource).IsTokenSecret) {
		return nil
	}
	var all []permission
	for _, verb := range []string{"get", "create", "patch"} {
		all = append(all, permission{verb: verb, resource: "configmaps", namespace: a.cluster.Namespace, name: lookup.CredentialsName})
	}
	return all
}

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
	var all []permission
	for _, resource := range reservation.Resources {
		if !bindsAccount(resource, secret) {
			continue
		}
		for _, rule := range rulesOf(reservation, resource, readBinding(resource).RoleRef) {
			all = union(all, permissionsOf(rule, resource.Namespace)...)
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

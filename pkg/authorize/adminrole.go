// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const adminRemedy = "Obtain the admin role in the TKE console: cluster, Authorization management, ClusterRole, Obtain " +
	"cluster admin role (tke:admin). Or ask an administrator for these permissions; kubectl auth can-i takes each as it " +
	"stands here."

func (a *Authorizer) checkAdminRole(ctx context.Context, _ Options) Check {
	lacking, err := missing(ctx, a.cluster.Client, append(applyPermissions(a.set), a.leavePermissions()...))
	if err != nil {
		return Check{
			Status:  Unknown,
			Message: fmt.Sprintf("The API server does not tell what you may do: %v.", err),
			Remedy:  "Try again; the apply fails later, and says at what, where a permission is missing.",
		}
	}
	if len(lacking) > 0 {
		return Check{Status: Fail, Message: fmt.Sprintf("You may not: %s.", join(lacking)), Remedy: adminRemedy}
	}
	return a.checkSecretLists(ctx)
}

// checkSecretLists looks at the permissions that help to find an older token Secret. The apply can do without them.
func (a *Authorizer) checkSecretLists(ctx context.Context) Check {
	lacking, err := missing(ctx, a.cluster.Client, listPermissions(a.set))
	switch {
	case err != nil:
		return Check{Status: Pass, Message: fmt.Sprintf("You may apply the reserved resources. (Not known: %v.)", err)}
	case len(lacking) > 0:
		return Check{Status: Pass, Message: fmt.Sprintf("You may apply the reserved resources. As you may not %s, older "+
			"token Secrets are looked for among those only that the ServiceAccount refers to.", join(lacking))}
	}
	return Check{Status: Pass, Message: "You may apply the reserved resources."}
}

// applyPermissions returns what applying a set takes. A server-side apply is a PATCH, also where it creates, and so it is
// authorized with the object's name throughout.
func applyPermissions(set *reserved.Set) []permission {
	var all permissionList
	for _, entry := range set.Resources() {
		if !entry.HasManifest() {
			continue
		}
		for _, verb := range []string{"get", "create", "patch"} {
			all.add(on(entry, verb))
		}
		if isRole(entry) {
			all.add(on(entry, "escalate"))
		}
		if isBinding(entry) {
			all.add(bindPermission(entry))
		}
		if entry.IsTokenSecret() {
			all.add(permission{verb: "get", resource: "serviceaccounts", namespace: entry.Namespace, name: entry.Account})
		}
	}
	return all.list
}

// bindPermission is what it takes to name a role in a binding, without holding all that the role grants.
func bindPermission(binding *reserved.Resource) permission {
	ref := readBinding(binding).RoleRef
	p := permission{verb: "bind", group: rbacv1.GroupName, resource: "clusterroles", name: ref.Name}
	if ref.Kind == roleKind {
		p.resource, p.namespace = "roles", binding.Namespace
	}
	return p
}

// listPermissions returns what finding an older token Secret takes.
func listPermissions(set *reserved.Set) []permission {
	var all permissionList
	for _, entry := range set.Resources() {
		if entry.HasManifest() && entry.IsTokenSecret() && entry.NamePrefix != "" {
			all.add(permission{verb: "list", resource: string(corev1.ResourceSecrets), namespace: entry.Namespace})
		}
	}
	return all.list
}

func on(entry *reserved.Resource, verb string) permission {
	return permission{
		verb: verb, group: entry.GVR.Group, resource: entry.GVR.Resource, namespace: entry.Namespace, name: entry.Name,
	}
}

// permissionList keeps its order, and each permission once.
type permissionList struct {
	list []permission
	seen map[permission]bool
}

func (l *permissionList) add(p permission) {
	if l.seen[p] {
		return
	}
	if l.seen == nil {
		l.seen = map[permission]bool{}
	}
	l.seen[p] = true
	l.list = append(l.list, p)
}

func join(permissions []permission) string {
	texts := make([]string, len(permissions))
	for i, p := range permissions {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

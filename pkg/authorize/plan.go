// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Plan says what Retire will delete, and who may still need it. Nothing in it is a value of a Secret.
type Plan struct {
	Reservation string  `json:"reservation"`
	Objects     []Step  `json:"objects"`
	LastUses    []Use   `json:"lastUses"`
	Writes      []Write `json:"writes"`
	// Bindings are other bindings that name a reserved ServiceAccount or role: "rolebindings/some-namespace/some-name".
	Bindings []string `json:"bindings"`
	// Pods run as a reserved ServiceAccount: "some-namespace/some-name".
	Pods []string `json:"pods"`
}

// Use is the last use of a token, as the API server notes it.
type Use struct {
	Secret string `json:"secret"`
	// Date is a day such as "2026-11-28"; empty if the token was never used.
	Date string `json:"date"`
}

// Write is the last write of a role by one field manager.
type Write struct {
	Resource string       `json:"resource"`
	Manager  string       `json:"manager"`
	Time     *metav1.Time `json:"time"`
}

// Plan reads what Retire with these options will delete. It changes nothing. Of the options, Reservation and KeepClusterRole count.
func (a *Authorizer) Plan(ctx context.Context, options Revocation) (Plan, error) {
	plan := Plan{
		Reservation: options.Reservation.Name,
		Objects:     []Step{}, LastUses: []Use{}, Writes: []Write{}, Bindings: []string{}, Pods: []string{},
	}
	targets, err := a.targets(ctx, options.Reservation)
	if err != nil {
		return plan, err
	}
	r := run{Revocation: options}
	for _, t := range targets {
		switch {
		case t.live == nil:
			plan.Objects = append(plan.Objects, Step{t.String(), "absent"})
			continue
		case r.keeps(t):
			plan.Objects = append(plan.Objects, Step{t.String(), "keep"})
		default:
			plan.Objects = append(plan.Objects, Step{t.String(), "delete"})
		}
		if t.resource.IsTokenSecret() {
			plan.LastUses = append(plan.LastUses, Use{t.String(), t.live.GetLabels()[reserved.LastUsedLabel]})
		}
		for _, entry := range t.live.GetManagedFields() {
			if isRole(t.resource) {
				plan.Writes = append(plan.Writes, Write{t.String(), entry.Manager, entry.Time})
			}
		}
	}
	if err := a.addBindings(ctx, &plan, options.Reservation); err != nil {
		return plan, err
	}
	return plan, a.addPods(ctx, &plan, options.Reservation)
}

func (a *Authorizer) addBindings(ctx context.Context, plan *Plan, reservation *reserved.Reservation) error {
	cluster, err := a.cluster.Client.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list clusterrolebindings: %w", err)
	}
	for i := range cluster.Items {
		b := &cluster.Items[i]
		if names(reservation, "", b.RoleRef, b.Subjects) && !isOwn(reservation, "ClusterRoleBinding", "", b.Name) {
			plan.Bindings = append(plan.Bindings, "clusterrolebindings/"+b.Name)
		}
	}
	namespaced, err := a.cluster.Client.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list rolebindings: %w", err)
	}
	for i := range namespaced.Items {
		b := &namespaced.Items[i]
		if names(reservation, b.Namespace, b.RoleRef, b.Subjects) && !isOwn(reservation, "RoleBinding", b.Namespace, b.Name) {
			plan.Bindings = append(plan.Bindings, "rolebindings/"+b.Namespace+"/"+b.Name)
		}
	}
	return nil
}

// names reports whether a binding in the namespace names a reserved role or ServiceAccount.
func names(reservation *reserved.Reservation, namespace string, role rbacv1.RoleRef, subjects []rbacv1.Subject) bool {
	if role.Kind == roleKind && isOwn(reservation, roleKind, namespace, role.Name) || isOwn(reservation, role.Kind, "", role.Name) {
		return true
	}
	return slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool { return isOwn(reservation, s.Kind, s.Namespace, s.Name) })
}

func isOwn(reservation *reserved.Reservation, kind, namespace, name string) bool {
	return slices.ContainsFunc(reservation.Resources, func(resource *reserved.Resource) bool {
		return resource.HasManifest() && resource.Kind == kind && resource.Namespace == namespace && resource.Name == name
	})
}

func (a *Authorizer) addPods(ctx context.Context, plan *Plan, reservation *reserved.Reservation) error {
	for _, resource := range reservation.Resources {
		if !resource.IsServiceAccount() {
			continue
		}
		pods, err := a.cluster.Client.CoreV1().Pods(resource.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("spec.serviceAccountName", resource.Name).String(),
		})
		if err != nil {
			return fmt.Errorf("list pods that run as %s: %w", live.Object{Resource: resource}, err)
		}
		for i := range pods.Items {
			plan.Pods = append(plan.Pods, pods.Items[i].Namespace+"/"+pods.Items[i].Name)
		}
	}
	return nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	repairRemedy  = "Find out who changed it (kubectl get -o yaml), then authorize with --repair."
	deleteRemedy  = "Those fields are immutable: delete the object, or wait for its deletion, and authorize again."
	revivedRemedy = "The token of such a Secret depends only on the names and the uid of the ServiceAccount. Replace the credential for " +
		"good: " + guardian.Name + " rotate."
	rootCARemedy = "Only kube-controller-manager writes " + live.RootCAPath + ", on each change of the Secret. Find out what prevents it: " +
		"a MutatingAdmissionPolicy or mutating webhook that sets the field, or a controller manager that does not run or " +
		"lacks --root-ca-file. Then authorize with --repair: kube-controller-manager writes the field again."
)

func (a *Authorizer) checkExisting(ctx context.Context, repair bool) Check {
	checks := a.checkNamespaces(ctx)
	for _, resource := range a.cluster.Set.Resources() {
		if resource.HasManifest() {
			checks = append(checks, a.checkResource(ctx, resource, repair))
		}
	}
	return summarize(checks)
}

// summarize joins checks to one: the worst status, the messages, and each remedy once. Unless all pass, it leaves out the
// messages of those that do.
func summarize(checks []Check) Check {
	summary := Check{Status: worst(checks)}
	var messages, remedies []string
	for _, check := range checks {
		if summary.Status == Pass || check.Status != Pass {
			messages = append(messages, check.Message)
		}
		if check.Remedy != "" && !slices.Contains(remedies, check.Remedy) {
			remedies = append(remedies, check.Remedy)
		}
	}
	summary.Message, summary.Remedy = strings.Join(messages, "; "), strings.Join(remedies, " ")
	return summary
}

func (a *Authorizer) checkResource(ctx context.Context, resource *reserved.Resource, repair bool) Check {
	o, err := a.cluster.Compare(ctx, resource)
	switch {
	case err != nil:
		return Check{Status: Fail, Message: err.Error(), Remedy: "Make sure that you may read it, and that the cluster serves its kind."}
	case len(o.Drift) > 0:
		return checkDrift(o, repair)
	case o.Live != nil:
		return Check{Status: Pass, Message: o.String() + " equals its manifest"}
	}
	deleted, err := a.deletedCredential(ctx, o)
	switch {
	case err != nil:
		return Check{Status: Fail, Message: err.Error(), Remedy: "Make sure that you may read it."}
	case deleted != "":
		return Check{
			Status: Fail, Remedy: revivedRemedy,
			Message: fmt.Sprintf("token Secret %s was deleted, and its ServiceAccount %s was not: a new Secret would make the deleted token "+
				"valid again", resource.Reference(resource.Namespace, deleted), resource.Account),
		}
	case o.InUse() != "":
		return Check{Status: Pass, Message: fmt.Sprintf("the older token Secret %s is used%s", o, describe(o.Older))}
	}
	return Check{Status: Pass, Message: o.String() + " is absent" + describe(o.Older)}
}

func checkDrift(o live.Object, repair bool) Check {
	paths := strings.Join(o.Drift, ", ")
	check := Check{Status: Fail, Message: fmt.Sprintf("%s differs from its manifest in %s", o, paths), Remedy: repairRemedy}
	immutable := immutableDrift(o)
	switch {
	case len(immutable) > 0:
		check.Message = fmt.Sprintf("%s differs from its manifest in %s", o, strings.Join(immutable, ", "))
		check.Remedy = deleteRemedy
	case repair:
		return Check{Status: Pass, Message: fmt.Sprintf("%s will be repaired in %s", o, paths)}
	case slices.Contains(o.Drift, live.RootCAPath):
		check.Message, check.Remedy = fmt.Sprintf("%s differs in %s: %s", o, paths, live.UnknownCA), rootCARemedy
	}
	return check
}

func describe(older live.Older) string {
	text := ""
	if len(older.Usable) > 1 {
		text += "; others are usable: " + strings.Join(older.Usable[1:], ", ")
	}
	if len(older.Useless) > 0 {
		text += "; these hold no token of the live ServiceAccount: " + strings.Join(older.Useless, ", ")
	}
	return text
}

// checkNamespaces returns a check for each namespace that does not pass. The API server itself keeps some namespaces.
func (a *Authorizer) checkNamespaces(ctx context.Context) []Check {
	var checks []Check
	seen := []string{"", metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault}
	for _, resource := range a.cluster.Set.Resources() {
		if slices.Contains(seen, resource.Namespace) {
			continue
		}
		seen = append(seen, resource.Namespace)
		if check := a.checkNamespace(ctx, resource.Namespace); check.Status != Pass {
			checks = append(checks, check)
		}
	}
	return checks
}

func (a *Authorizer) checkNamespace(ctx context.Context, name string) Check {
	namespace, err := a.cluster.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Check{
			Status: Fail, Message: fmt.Sprintf("namespace %s does not exist", name),
			Remedy: fmt.Sprintf("Create it: kubectl create namespace %s.", name),
		}
	case err != nil:
		return Check{
			Status: Unknown, Message: fmt.Sprintf("cannot read namespace %s: %v", name, err),
			Remedy: fmt.Sprintf("Make sure that the namespace %s exists.", name),
		}
	case namespace.DeletionTimestamp != nil:
		return Check{
			Status: Fail, Message: fmt.Sprintf("namespace %s is being deleted", name),
			Remedy: "Wait until it is gone, create it, and try again.",
		}
	}
	return Check{Status: Pass}
}

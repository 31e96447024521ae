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

// Status is the result of one check.
type Status string

// The statuses. Only Fail stops Authorize.
const (
	Pass    Status = "Pass"
	Fail    Status = "Fail"
	Unknown Status = "Unknown"
	Skipped Status = "Skipped"
)

// Check is the result of one check of the cluster. Message says what was found, and Remedy what to do; Remedy is empty if
// there is nothing to do. Neither holds a value of a Secret.
type Check struct {
	ID      string `json:"id"`
	Status  Status `json:"status"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

func pass(message string) Check         { return Check{Status: Pass, Message: message} }
func fail(message, remedy string) Check { return Check{Status: Fail, Message: message, Remedy: remedy} }

func unknown(message, remedy string) Check {
	return Check{Status: Unknown, Message: message, Remedy: remedy}
}

// Checks are all checks of one preflight, in their order.
type Checks struct {
	Checks []Check `json:"checks"`
}

// Failed returns the checks that failed.
func (c Checks) Failed() []Check {
	return slices.DeleteFunc(slices.Clone(c.Checks), func(check Check) bool { return check.Status != Fail })
}

// PreflightError says that the cluster is not ready, and that nothing was written. Failed holds at least one check.
type PreflightError struct{ Failed []Check }

// Error lists each failed check with its remedy:
//
//	the cluster is not ready; nothing was changed
//	kubernetes-version: Kubernetes v1.27.4 is older than 1.28
//	  Upgrade the cluster to 1.28 or later.
func (e *PreflightError) Error() string {
	var b strings.Builder
	b.WriteString("the cluster is not ready; nothing was changed")
	for _, check := range e.Failed {
		fmt.Fprintf(&b, "\n%s: %s", check.ID, check.Message)
		if check.Remedy != "" {
			fmt.Fprintf(&b, "\n  %s", check.Remedy)
		}
	}
	return b.String()
}

// WebhookReachable is the ID of the check of the API server's way to the guard.
const WebhookReachable = "webhook-reachable"

// Preflight runs every check, in a fixed order: kubernetes-version, admin-role, private-network, reserved-kinds,
// existing-resources, tke-cluster, webhook-reachable, and certificates if cert-manager issues the guard's. It writes nothing. An error
// of the API server makes a check Unknown, or Fail if Authorize cannot succeed. Of the options, PrivateNetwork,
// AskCloud and Repair count.
func (a *Authorizer) Preflight(ctx context.Context, options Options) Checks {
	var checks Checks
	add := func(id string, check Check) {
		check.ID = id
		checks.Checks = append(checks.Checks, check)
	}
	version, err := a.cluster.Version(ctx)
	add("kubernetes-version", checkVersion(version, err))
	add("admin-role", a.checkAdminRole(ctx))
	add("private-network", a.checkPrivateNetwork(ctx, options))
	add("reserved-kinds", a.checkServed())
	add("existing-resources", a.checkExisting(ctx, options.Repair))
	add("tke-cluster", a.checkTKE(ctx, version))
	add(WebhookReachable, a.checkReachable(ctx))
	if certificates := Certificates(ctx, a.cluster); len(certificates) > 0 {
		add("certificates", checkCertificates(certificates))
	}
	return checks
}

// worst returns Fail if a check failed, Unknown if one is unknown, and Pass otherwise.
func worst(checks []Check) Status {
	status := Pass
	for _, check := range checks {
		if check.Status == Fail || check.Status == Unknown && status != Fail {
			status = check.Status
		}
	}
	return status
}

const (
	revivedRemedy = "The token of such a Secret depends only on the names and the uid of the ServiceAccount. Replace the credential for " +
		"good: " + guardian.Name + " rotate."
	repairRemedy = "Find out who changed it (kubectl get -o yaml), then authorize with --repair."
	deleteRemedy = "Those fields are immutable: delete the object, or wait for its deletion, and authorize again."
	rootCARemedy = "Only kube-controller-manager writes " + live.RootCAPath + ", on each change of the Secret. Find out what prevents it: " +
		"a MutatingAdmissionPolicy or mutating webhook that sets the field, or a controller manager that does not run or " +
		"lacks --root-ca-file. Then authorize with --repair: kube-controller-manager writes the field again."
)

func (a *Authorizer) checkExisting(ctx context.Context, repair bool) Check {
	resources := a.cluster.Set.WithManifest()
	checks := make([]Check, len(resources))
	live.Each(len(resources), func(i int) { checks[i] = a.checkResource(ctx, resources[i], repair) })
	return summarize(append(a.checkNamespaces(ctx), checks...))
}

// summarize joins checks to one: the worst status, each remedy once, and the messages of those that do not pass, or of all.
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
		return fail(err.Error(), "Make sure that you may read it, and that the cluster serves its kind.")
	case len(o.Drift) > 0:
		return checkDrift(o, repair)
	case o.Live != nil:
		return pass(o.String() + " equals its manifest")
	}
	deleted, err := a.deletedCredential(ctx, o)
	switch {
	case err != nil:
		return fail(err.Error(), "Make sure that you may read it.")
	case deleted != "":
		return fail(fmt.Sprintf("token Secret %s was deleted, and its ServiceAccount %s was not: a new Secret would make the deleted token "+
			"valid again", resource.Reference(resource.Namespace, deleted), resource.Account), revivedRemedy)
	case o.InUse() != "":
		return pass("the older token Secret " + o.String() + " is used" + describe(o.Older))
	}
	return pass(o.String() + " is absent" + describe(o.Older))
}

func checkDrift(o live.Object, repair bool) Check {
	paths := strings.Join(o.Drift, ", ")
	immutable := immutableDrift(o)
	switch {
	case len(immutable) > 0:
		return fail(fmt.Sprintf("%s differs from its manifest in %s", o, strings.Join(immutable, ", ")), deleteRemedy)
	case repair:
		return pass(fmt.Sprintf("%s will be repaired in %s", o, paths))
	case slices.Contains(o.Drift, live.RootCAPath):
		return fail(fmt.Sprintf("%s differs in %s: %s", o, paths, live.UnknownCA), rootCARemedy)
	}
	return fail(fmt.Sprintf("%s differs from its manifest in %s", o, paths), repairRemedy)
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
	kept := []string{"", metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault}
	var names []string
	for _, resource := range a.cluster.Set.Resources() {
		if !slices.Contains(kept, resource.Namespace) && !slices.Contains(names, resource.Namespace) {
			names = append(names, resource.Namespace)
		}
	}
	checks := make([]Check, len(names))
	live.Each(len(names), func(i int) { checks[i] = a.checkNamespace(ctx, names[i]) })
	return slices.DeleteFunc(checks, func(check Check) bool { return check.Status == Pass })
}

func (a *Authorizer) checkNamespace(ctx context.Context, name string) Check {
	namespace, err := a.cluster.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fail("namespace "+name+" does not exist", "Create it: kubectl create namespace "+name+".")
	case err != nil:
		return unknown("cannot read namespace "+name+": "+err.Error(), "Make sure that the namespace "+name+" exists.")
	case namespace.DeletionTimestamp != nil:
		return fail("namespace "+name+" is being deleted", "Wait until it is gone, create it, and try again.")
	}
	return pass("")
}

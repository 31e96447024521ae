// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// SideDoorPrefix begins the names of the webhooks of side doors.
const SideDoorPrefix = "side-door-"

// isSideDoor reports whether a webhook is one of side doors: it may ignore failures while the others do not.
func isSideDoor(webhook *admissionregistrationv1.ValidatingWebhook) bool {
	return strings.HasPrefix(webhook.Name, SideDoorPrefix)
}

// maxReached is the max number of resources in the conditions of one webhook: a name has at most 253 characters and is in three lists, and
// CEL takes expressions of 100,000 code points.
const maxReached = 100

// sideDoorWebhooks returns one webhook for each type of write that can be a side door to the set, or several for a set of many resources;
// none without a policy. Its match conditions are policy.doorOf and policy.reach in CEL: e2e/matchconditions compares the two.
func sideDoorWebhooks(set *reserved.Set, options Options) []admissionregistrationv1.ValidatingWebhook {
	if options.SideDoors == "" {
		return nil
	}
	options.FailurePolicy = options.SideDoors
	var reached []*reserved.Resource
	for _, resource := range set.Resources() {
		if resource.IsServiceAccount() || resource.GVR.Group == rbacv1.GroupName {
			reached = append(reached, resource)
		}
	}
	var all []admissionregistrationv1.ValidatingWebhook
	for part := range slices.Chunk(reached, maxReached) {
		d := doors{options: options}
		if len(all) > 0 {
			d.suffix = fmt.Sprintf("-%d", len(all))
		}
		all = append(all, d.of(part)...)
	}
	return all
}

func (d *doors) of(resources []*reserved.Resource) []admissionregistrationv1.ValidatingWebhook {
	for _, resource := range resources {
		switch {
		case resource.IsServiceAccount():
			d.accounts = append(d.accounts, resource)
		case resource.Kind == "ClusterRole", resource.Kind == "Role":
			d.roles = append(d.roles, resource)
		default:
			d.bindings = append(d.bindings, resource)
		}
	}
	if len(d.accounts) > 0 {
		d.addTokens()
		d.addPods()
		d.addCertificates()
	}
	if len(d.accounts)+len(d.roles) > 0 {
		d.addBindings()
	}
	return d.webhooks
}

type doors struct {
	options                   Options
	suffix                    string
	accounts, roles, bindings []*reserved.Resource
	webhooks                  []admissionregistrationv1.ValidatingWebhook
}

// add adds a webhook for an operation on resources of one group. Conditions are names and expressions, one after the other.
func (d *doors) add(name string, writes admissionregistrationv1.RuleWithOperations, conditions ...string) {
	webhook := newWebhook(SideDoorPrefix+name+d.suffix+"."+guardian.WebhookDomain, d.options)
	webhook.Rules = []admissionregistrationv1.RuleWithOperations{writes}
	for i := 0; i < len(conditions); i += 2 {
		webhook.MatchConditions = append(webhook.MatchConditions, admissionregistrationv1.MatchCondition{
			Name: conditions[i], Expression: conditions[i+1],
		})
	}
	d.webhooks = append(d.webhooks, webhook)
}

// writes are operations on the resources of one group.
func writes(
	group string, resources []string, operations ...admissionregistrationv1.OperationType,
) admissionregistrationv1.RuleWithOperations {
	return admissionregistrationv1.RuleWithOperations{
		Operations: operations,
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources, Scope: new(admissionregistrationv1.AllScopes),
		},
	}
}

// addTokens leaves out the tokens that kubelets mount into Pods.
func (d *doors) addTokens() {
	d.add("tokens", writes("", []string{"serviceaccounts/token"}, admissionregistrationv1.Create),
		"reserved-account", named(d.accounts, "request.namespace", "request.name"),
		"not-kubelet", `!(request.userInfo.username.startsWith('system:node:') && has(request.userInfo.groups)`+
			` && 'system:nodes' in request.userInfo.groups && object != null && has(object.spec.boundObjectRef)`+
			` && has(object.spec.boundObjectRef.kind) && object.spec.boundObjectRef.kind == 'Pod')`)
}

func (d *doors) addPods() {
	const account = "object.spec.serviceAccountName"
	d.add("pods", writes("", []string{"pods"}, admissionregistrationv1.Create),
		"reserved-account", "has("+account+") && ("+named(d.accounts, "request.namespace", account)+")")
}

// addCertificates cannot read the name in the certificate request. It leaves out the signers that sign no name of a ServiceAccount:
// https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
func (d *doors) addCertificates() {
	const isApproved = "(has(%[1]s.status) && has(%[1]s.status.conditions) && %[1]s.status.conditions.exists(c, c.type == 'Approved'))"
	d.add("certificates",
		writes("certificates.k8s.io", []string{"certificatesigningrequests/approval"}, admissionregistrationv1.Update),
		"newly-approved", fmt.Sprintf(isApproved, "object")+" && !"+fmt.Sprintf(isApproved, "oldObject"),
		"any-name", "!(object.spec.signerName in ['kubernetes.io/kube-apiserver-client-kubelet', 'kubernetes.io/kubelet-serving'])")
}

// addBindings leaves out the reserved bindings: the webhook of their kind judges them.
func (d *doors) addBindings() {
	var names []string
	if len(d.roles) > 0 {
		names = append(names, named(d.roles, "(object.roleRef.kind == 'Role' ? request.namespace : '')", "object.roleRef.name"))
	}
	if len(d.accounts) > 0 {
		var groups []string
		for _, account := range d.accounts {
			groups = append(groups, policies.Quote("system:serviceaccounts:"+account.Namespace))
		}
		slices.Sort(groups)
		names = append(names, "has(object.subjects) && object.subjects.exists(s, s.kind == 'ServiceAccount' && ("+
			named(d.accounts, "(has(s.namespace) && s.namespace != '' ? s.namespace : "+ownNamespace+")", "s.name")+
			") || s.kind == 'User' && ("+keyed(d.accounts, "s.name", reserved.AccountUserPrefix, ":")+
			") || s.kind == 'Group' && s.name in ["+strings.Join(slices.Compact(groups), ", ")+"])")
	}
	conditions := []string{"names-reserved", strings.Join(names, " || ")}
	if len(d.bindings) > 0 {
		conditions = append(conditions, "other-binding", "!("+named(d.bindings, ownNamespace, "object.metadata.name")+")")
	}
	resources := []string{"rolebindings", "clusterrolebindings"}
	d.add("bindings", writes(rbacv1.GroupName, resources, admissionregistrationv1.Create, admissionregistrationv1.Update), conditions...)
}

// ownNamespace is the namespace of the request; empty for a cluster-scoped object.
const ownNamespace = "(has(request.namespace) ? request.namespace : '')"

// named is reserved.Resource.Covers in CEL for expressions of a namespace and a name.
func named(resources []*reserved.Resource, namespace, name string) string {
	return keyed(resources, namespace+" + '/' + "+name, "", "/")
}

// keyed compares an expression with a text for each resource: the start, its namespace, the separator, and its name or the start of that.
func keyed(resources []*reserved.Resource, expression, start, separator string) string {
	var exact, all []string
	for _, resource := range resources {
		text := start + resource.Namespace + separator
		if resource.NamePrefix != "" {
			all = append(all, "("+expression+").startsWith("+policies.Quote(text+resource.NamePrefix)+")")
			continue
		}
		exact = append(exact, policies.Quote(text+resource.Name))
	}
	if len(exact) > 0 {
		all = append(all, "("+expression+") in ["+strings.Join(exact, ", ")+"]")
	}
	return strings.Join(all, " || ")
}

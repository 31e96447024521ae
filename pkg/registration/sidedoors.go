// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// sideDoorPrefix begins the names of the webhooks of side doors.
const sideDoorPrefix = "side-door-"

// isSideDoor reports whether a webhook is one of side doors: it may ignore failures while the others do not.
func isSideDoor(webhook *admissionregistrationv1.ValidatingWebhook) bool {
	return strings.HasPrefix(webhook.Name, sideDoorPrefix)
}

// sideDoorWebhooks returns one webhook for each type of write that can be a side door to the set; none without a policy. Its match
// conditions are policy.doorOf and policy.reach in CEL: e2e/matchconditions compares the two.
func sideDoorWebhooks(set *reserved.Set, options Options) []admissionregistrationv1.ValidatingWebhook {
	if options.SideDoors == "" {
		return nil
	}
	options.FailurePolicy = options.SideDoors
	d := doors{options: options}
	for _, resource := range set.Resources() {
		isRole := resource.GVR.Group == rbacv1.GroupName && (resource.Kind == "ClusterRole" || resource.Kind == "Role")
		switch {
		case resource.IsServiceAccount():
			d.accounts = append(d.accounts, resource)
		case isRole:
			d.roles = append(d.roles, resource)
		case resource.GVR.Group == rbacv1.GroupName:
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
	accounts, roles, bindings []*reserved.Resource
	webhooks                  []admissionregistrationv1.ValidatingWebhook
}

// add adds a webhook for writes to these resources of one group. Conditions are names and expressions, one after the other.
func (d *doors) add(name, group string, resources []string, operations []admissionregistrationv1.OperationType, conditions ...string) {
	webhook := newWebhook(sideDoorPrefix+name+"."+guardian.WebhookDomain, d.options)
	webhook.Rules = []admissionregistrationv1.RuleWithOperations{{
		Operations: operations,
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources, Scope: new(admissionregistrationv1.AllScopes),
		},
	}}
	for i := 0; i < len(conditions); i += 2 {
		webhook.MatchConditions = append(webhook.MatchConditions, admissionregistrationv1.MatchCondition{
			Name: conditions[i], Expression: conditions[i+1],
		})
	}
	d.webhooks = append(d.webhooks, webhook)
}

func created() []admissionregistrationv1.OperationType {
	return []admissionregistrationv1.OperationType{admissionregistrationv1.Create}
}

func updated() []admissionregistrationv1.OperationType {
	return []admissionregistrationv1.OperationType{admissionregistrationv1.Update}
}

// addTokens leaves out the tokens that kubelets mount into Pods.
func (d *doors) addTokens() {
	d.add("tokens", "", []string{"serviceaccounts/token"}, created(),
		"reserved-account", named(d.accounts, "request.namespace", "request.name"),
		"not-kubelet", `!(request.userInfo.username.startsWith('system:node:') && has(request.userInfo.groups)`+
			` && 'system:nodes' in request.userInfo.groups && object != null && has(object.spec.boundObjectRef)`+
			` && has(object.spec.boundObjectRef.kind) && object.spec.boundObjectRef.kind == 'Pod')`)
}

func (d *doors) addPods() {
	const account = "object.spec.serviceAccountName"
	d.add("pods", "", []string{"pods"}, created(),
		"reserved-account", "has("+account+") && ("+named(d.accounts, "request.namespace", account)+")")
}

// addCertificates cannot read the name in the certificate request. It leaves out the signers that sign no name of a ServiceAccount:
// https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
func (d *doors) addCertificates() {
	const isApproved = "(has(%[1]s.status) && has(%[1]s.status.conditions) && %[1]s.status.conditions.exists(c, c.type == 'Approved'))"
	d.add("certificates", "certificates.k8s.io", []string{"certificatesigningrequests/approval"}, updated(),
		"newly-approved", fmt.Sprintf(isApproved, "object")+" && !"+fmt.Sprintf(isApproved, "oldObject"),
		"any-name", "!(object.spec.signerName in ['kubernetes.io/kube-apiserver-client-kubelet', 'kubernetes.io/kubelet-serving'])")
}

// addBindings leaves out the reserved bindings, which have webhooks of their own.
func (d *doors) addBindings() {
	names := []string{}
	if len(d.roles) > 0 {
		names = append(names, named(d.roles, "(object.roleRef.kind == 'Role' ? request.namespace : '')", "object.roleRef.name"))
	}
	if len(d.accounts) > 0 {
		var users, groups []string
		for _, account := range d.accounts {
			users = append(users, startsOrIs("s.name", "system:serviceaccount:"+account.Namespace+":", account))
			groups = append(groups, quote("system:serviceaccounts:"+account.Namespace))
		}
		names = append(names, "has(object.subjects) && object.subjects.exists(s, s.kind == 'ServiceAccount' && ("+
			named(d.accounts, "(has(s.namespace) && s.namespace != '' ? s.namespace : has(request.namespace) ? request.namespace : '')", "s.name")+
			") || s.kind == 'User' && ("+strings.Join(users, " || ")+
			") || s.kind == 'Group' && s.name in ["+strings.Join(groups, ", ")+"])")
	}
	conditions := []string{"names-reserved", strings.Join(names, " || ")}
	for _, binding := range d.bindings {
		expression := "request.resource.resource == " + quote(binding.GVR.Resource) + " && " + startsOrIs("object.metadata.name", "", binding)
		if binding.Namespace != "" {
			expression += " && request.namespace == " + quote(binding.Namespace)
		}
		conditions = append(conditions, fmt.Sprintf("other-binding-%d", len(conditions)/2), "!("+expression+")")
	}
	d.add("bindings", rbacv1.GroupName, []string{"rolebindings", "clusterrolebindings"}, append(created(), updated()...), conditions...)
}

// named is reserved.Resource.Covers in CEL for expressions of a namespace and a name.
func named(resources []*reserved.Resource, namespace, name string) string {
	var all []string
	for _, resource := range resources {
		all = append(all, namespace+" == "+quote(resource.Namespace)+" && "+startsOrIs(name, "", resource))
	}
	return strings.Join(all, " || ")
}

// startsOrIs compares an expression with the reserved names, each after the same text.
func startsOrIs(expression, text string, resource *reserved.Resource) string {
	if resource.NamePrefix != "" {
		return expression + ".startsWith(" + quote(text+resource.NamePrefix) + ")"
	}
	return expression + " == " + quote(text+resource.Name)
}

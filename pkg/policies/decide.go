// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Variables that the chart replaces by its values.
const (
	// VariableExempt is whether an exemption covers the request.
	VariableExempt = "exempt"
	// VariableControllerManagers are the user names of kube-controller-manager.
	VariableControllerManagers = "controllerManagers"
	// VariableNamespaceControllers are the user names of the namespace controller.
	VariableNamespaceControllers = "namespaceControllers"
	// VariableObserved is whether the policy only warns.
	VariableObserved = "observed"
	// VariableHint is the end of the message.
	VariableHint = "hint"
)

func (c *compiler) declareVariable(name, format string, args ...any) {
	c.variables = append(c.variables, admissionregistrationv1.Variable{Name: name, Expression: fmt.Sprintf(format, args...)})
}

// declare declares all variables. A variable is evaluated once, when it is first used.
func (c *compiler) declare() {
	c.declareVariable(VariableExempt, "%s", exempt(c.reservation))
	c.declareVariable(VariableObserved, "%t", c.Mode == policy.Observe)
	c.declareVariable(VariableHint, "%s", Quote(strings.ReplaceAll(c.Hint, BindingPlaceholder, c.meta().Name)))
	if IsExistence(c.resource) {
		c.declareVariable("reason", "variables.exempt ? %s : %s", Quote(string(policy.Exemption)), Quote(string(policy.ReservedDelete)))
	} else {
		c.declareVariable(VariableControllerManagers, "%s", quoteAll(c.Writers.ControllerManager))
		c.declareVariable(VariableNamespaceControllers, "%s", quoteAll(c.Writers.NamespaceController))
		c.declareChanges()
		c.declareReason()
	}
	c.declareVariable("allowed", "variables.reason in %s",
		quoteAll([]policy.Reason{policy.NoChange, policy.SystemWrite, policy.Restoration, policy.Exemption, policy.NamespaceTerminating}))
	c.declareVariable("name", "request.operation == 'DELETE' ? oldObject.metadata.name : object.metadata.name")
	c.declareVariable("sentence", "%s", c.sentence())
}

// exempt is Exemption.Covers for the exemptions of a reservation. CEL has no clock, so that an exemption with an end covers nothing.
func exempt(reservation *reserved.Reservation) string {
	covers := []string{}
	for _, e := range reservation.Exemptions {
		identity := "request.userInfo.username == " + Quote(e.User)
		switch {
		case e.Until != nil:
			continue
		case e.ServiceAccount != "":
			identity = "request.userInfo.username == " + Quote(e.AccountUser())
		case e.Group != "":
			identity = "has(request.userInfo.groups) && " + Quote(e.Group) + " in request.userInfo.groups"
		}
		covers = append(covers, fmt.Sprintf("request.operation in %s && %s", quoteAll(e.Operations), identity))
	}
	if len(covers) == 0 {
		return "false"
	}
	return strings.Join(covers, " || ")
}

// declareReason declares the reason of the decision: the first rule that fits, in the order of package policy.
func (c *compiler) declareReason() {
	c.declareVariable("mints", "%s", c.mints())
	c.declareVariable("completesDeletion", "oldObject[?'metadata'][?'deletionTimestamp'].hasValue() && %s && %s",
		isEmpty("object[?'metadata'][?'finalizers']"), isEmpty("object[?'spec'][?'finalizers']"))
	c.declareVariable("writesAsSystem", "%s || %s", c.labelsLastUse(), c.fillsToken())
	then := func(condition string, reason policy.Reason) string {
		return condition + " ? " + Quote(string(reason)) + " : "
	}
	isExempt := then("variables.exempt", policy.Exemption)
	onDelete := then(c.endsNamespace(), policy.NamespaceTerminating) + isExempt + Quote(string(policy.ReservedDelete))
	onCreate := isExempt + then("variables.mints", policy.TokenMint) + Quote(string(policy.ReservedCreate))
	onUpdate := then("variables.changed == [] && variables.newOwners == []", policy.NoChange) +
		then("variables.writesAsSystem", policy.SystemWrite)
	if c.resource.HasManifest() {
		onCreate = then("object.metadata.name == "+Quote(c.resource.Name)+" && variables.changed == [] && variables.newOwners == []",
			policy.Restoration) + onCreate
		onUpdate += then("!variables.wrong && variables.newOwners == [] && !variables.mints && !variables.completesDeletion", policy.Restoration)
	}
	onUpdate += isExempt + then("variables.mints", policy.TokenMint) +
		then("variables.completesDeletion", policy.ReservedDelete) + Quote(string(policy.ReservedUpdate))
	c.declareVariable("reason", "%srequest.operation == 'DELETE' ? (%s) : request.operation == 'CREATE' ? (%s) : (%s)",
		then("has(request.subResource) && request.subResource != ''", policy.Unreadable), onDelete, onCreate, onUpdate)
}

// endsNamespace is namespaceEnd of package policy.
func (c *compiler) endsNamespace() string {
	if c.resource.Namespace == "" || c.resource.Namespace == metav1.NamespaceSystem {
		return "false"
	}
	return "has(namespaceObject.metadata.deletionTimestamp) && request.userInfo.username in variables." + VariableNamespaceControllers
}

// mints is mints of package policy. A new object has no account before.
func (c *compiler) mints() string {
	if !c.resource.IsTokenSecret() {
		return "false"
	}
	const account = "[?'metadata'][?'annotations'][?'" + corev1.ServiceAccountNameKey + "'].orValue('')"
	want := Quote(c.resource.Account)
	return fmt.Sprintf("object.metadata.name != %s && object%s == %s && (request.operation == 'CREATE' || oldObject%[2]s != %[3]s)",
		Quote(c.resource.Name), account, want)
}

// notByUser is changesOnly of package policy for an update with changes: no user becomes the owner of a field of the control plane.
const notByUser = "variables.changed != [] && " +
	"!variables.newOwners.exists(m, m[?'operation'].orValue('') != 'Update' || m[?'manager'].orValue('').startsWith('kubectl'))"

// labelsLastUse is labelsLastUse of package policy. The match conditions skip most of these writes.
func (c *compiler) labelsLastUse() string {
	isDate := " && string(variables.new%[1]d[?k].orValue('')).matches(" + Quote(policy.DatePattern) + ")"
	return c.changesOnly(map[string]string{"metadata.labels": "k == " + Quote(lastUsedLabel) + isDate},
		"request.userInfo.username == 'system:apiserver'", "has(request.userInfo.groups) && 'system:masters' in request.userInfo.groups")
}

// fillsToken is fillsToken of package policy, as far as CEL knows: only empty fields are filled, with a token and a UID at least, and the
// namespace is right. The CA, the token and the UID themselves are not examined.
func (c *compiler) fillsToken() string {
	const fills = " && variables.old%[1]d[?k].orValue('') == '' && variables.new%[1]d[?k].orValue('') != ''"
	data := quoteAll([]string{corev1.ServiceAccountRootCAKey, corev1.ServiceAccountNamespaceKey, corev1.ServiceAccountTokenKey})
	namespace := Quote(base64.StdEncoding.EncodeToString([]byte(c.resource.Namespace)))
	return c.changesOnly(map[string]string{
		"metadata.annotations": "k == " + Quote(corev1.ServiceAccountUIDKey) + fills,
		"data":                 "k in " + data + fills + " && (k != 'namespace' || variables.new%[1]d[k] == " + namespace + ")",
	}, "request.userInfo.username in variables."+VariableControllerManagers,
		"object[?'metadata'][?'annotations'][?'"+corev1.ServiceAccountNameKey+"'].orValue('') == "+Quote(c.resource.Account),
		"object[?'metadata'][?'annotations'][?'"+corev1.ServiceAccountUIDKey+"'].orValue('') != ''",
		"object[?'data'][?'"+corev1.ServiceAccountTokenKey+"'].orValue('') != ''")
}

// changesOnly is an update of a token Secret under the conditions, whose changed members k satisfy the expression of their node. Members
// of other nodes do not change.
func (c *compiler) changesOnly(members map[string]string, conditions ...string) string {
	if !c.resource.IsTokenSecret() {
		return "false"
	}
	conditions = append(conditions, notByUser)
	for i, n := range c.nodes {
		if member := members[n.path()]; member != "" {
			conditions = append(conditions, fmt.Sprintf("variables.changed%[1]d.all(k, "+member+")", i))
		} else {
			conditions = append(conditions, fmt.Sprintf("variables.changed%d == []", i))
		}
	}
	return strings.Join(conditions, " && ")
}

// sentence is Decision.Sentence of package policy for a denial. It names members of objects in the manifest, and no elements of lists.
func (c *compiler) sentence() string {
	object := Quote(c.resource.Kind+` "`) + ` + variables.name + '"' + `
	isBy := " is reserved by " + c.resource.Owner
	if IsExistence(c.resource) {
		return object + Quote(" holds resources reserved by "+c.resource.Owner+" and must not be deleted.")
	}
	c.declareVariable("paths", "%s", `variables.changed + (variables.newOwners != [] && (request.operation == 'CREATE' ? `+
		`variables.changed == [] : !variables.wrong) ? ['metadata.managedFields'] : [])`)
	c.declareVariable("list", "variables.paths.size() <= %[1]d ? variables.paths.join(', ') : "+
		"[%[2]s].map(i, variables.paths[i]).join(', ') + ' and ' + string(variables.paths.size() - %[1]d) + ' more'", maxNamed, indexes())
	onCreate := Quote(isBy+" and must match its manifest when it is created (different: ") + " + variables.list + ').'"
	if c.resource.NamePrefix != "" {
		onCreate = fmt.Sprintf("variables.name != %s ? %s : %s", Quote(c.resource.Name), Quote(fmt.Sprintf(
			" has the prefix %q, which is reserved by %s, and must not be created.", c.resource.NamePrefix, c.resource.Owner)), onCreate)
	}
	is := func(reason policy.Reason, then string) string {
		return "variables.reason == " + Quote(string(reason)) + " ? " + then + " : "
	}
	return is(policy.Unreadable, Quote(policy.Deny(policy.Unreadable).Sentence())) + object + "(" +
		is(policy.ReservedDelete, Quote(isBy+" and must not be deleted.")) +
		is(policy.TokenMint, Quote(fmt.Sprintf(" would hold a token of ServiceAccount %q, which is reserved by %s.",
			c.resource.Account, c.resource.Owner))) +
		is(policy.ReservedCreate, "("+onCreate+")") +
		Quote(isBy+" and must not be updated (changed: ") + " + variables.list + ').')"
}

// message is Decision.Message of package policy in one line, as the API server accepts no other.
func (c *compiler) message() string {
	where := "''"
	if c.resource.Namespace != "" {
		where = Quote(" [namespace " + c.resource.Namespace + "]")
	}
	return "variables.sentence + " + where + " + (variables.hint == '' ? '' : ' ' + variables.hint)"
}

// maxNamed is the max number of changed fields that a message names, as in package policy.
const maxNamed = 8

func indexes() string {
	var list []string
	for i := range maxNamed {
		list = append(list, strconv.Itoa(i))
	}
	return strings.Join(list, ", ")
}

// auditAnnotations are those of the webhook, with the sentence of a denial in the place of the record. The API server adds the name of
// the policy to the keys, and leaves out an empty value.
func (c *compiler) auditAnnotations() []admissionregistrationv1.AuditAnnotation {
	prefix := strings.TrimSuffix(c.resource.Reference(c.resource.Namespace, "/").String(), "/")
	then := func(condition string, outcome v1alpha1.Outcome) string {
		return condition + " ? " + Quote(string(outcome)) + " : "
	}
	is := func(reason policy.Reason) string { return "variables.reason == " + Quote(string(reason)) }
	return []admissionregistrationv1.AuditAnnotation{
		{Key: "decision", ValueExpression: "variables.allowed || variables.observed ? 'allow' : 'deny'"},
		{Key: "reason", ValueExpression: "variables.reason"},
		{Key: "operation", ValueExpression: "request.operation"},
		{Key: "resource", ValueExpression: Quote(prefix) + " + variables.name"},
		{Key: "dryRun", ValueExpression: "has(request.dryRun) && request.dryRun ? 'true' : ''"},
		{Key: "message", ValueExpression: "variables.allowed ? '' : variables.sentence"},
		{Key: "outcome", ValueExpression: then(is(policy.Restoration)+" && request.operation == 'CREATE'", v1alpha1.Authorized) +
			then(is(policy.Restoration), v1alpha1.Restored) + then(is(policy.Exemption), v1alpha1.Exempted) +
			then(is(policy.NamespaceTerminating), v1alpha1.WouldDeny) +
			"variables.allowed ? '' : " + then("variables.observed", v1alpha1.WouldDeny) + Quote(string(v1alpha1.Denied))},
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package policies compiles the reserved set to ValidatingAdmissionPolicies, which the API server evaluates itself. It also builds the
// match conditions that the policies share with the webhook configuration.
//
// A policy judges a write by the rules of package policy, in CEL. Where CEL cannot know what the guard looks up, the policy decides as
// docs/decisions/engine-policy.md says.
package policies

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// The chart renders the policies of the built-in reservation from a file, because helm cannot compile them.
//
//go:generate sh -c "go run ../../cmd/apigw-guardian policy --backstop >../../charts/apigw-guardian/files/policies.yaml"

// ErrTooLarge means that the API server would not accept the policy of a reserved resource.
var ErrTooLarge = errors.New("too large for a policy")

// maxExpression is the max length of a CEL expression in characters: cel-go's default, which the API server does not change
// (github.com/google/cel-go/parser/options.go, expressionSizeCodePointLimit).
const maxExpression = 100_000

// BindingPlaceholder is the part of a hint that the name of the policy's binding replaces.
const BindingPlaceholder = "{binding}"

// DefaultHint is the end of a denial. A policy cannot honour an Unlock.
const DefaultHint = "To change it on purpose, a cluster administrator runs: kubectl delete validatingadmissionpolicybinding " +
	BindingPlaceholder

// staticSuffix ends the names of policies that the API server reads from its disk (KEP-5793).
const staticSuffix = ".static.k8s.io"

// ReservationLabel is the label of policies and bindings that holds the name of the reservation.
const ReservationLabel = guardian.Group + "/reservation"

// Options are what the policies depend on besides the reserved set.
type Options struct {
	Mode policy.Mode
	// Writers are the identities of the control plane.
	Writers policy.Writers
	// Hint ends each denial; empty for none.
	Hint string
	// Static names the policies as the API server requires it for files on its disk.
	Static bool
	// Backstop makes a policy decide only while the webhook configuration has no intact webhook for its resource, so that the guard
	// judges and records every other write. The API server evaluates no policy of a backstop if there is no webhook configuration.
	Backstop bool
}

// Policy is a policy with its binding.
type Policy struct {
	Policy  *admissionregistrationv1.ValidatingAdmissionPolicy
	Binding *admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// Compile returns one policy for each resource of the set, in the order of the set. The error is ErrTooLarge and names the resource.
func Compile(set *reserved.Set, options Options) ([]Policy, error) {
	var policies []Policy
	taken := map[string]bool{}
	for _, reservation := range set.Reservations() {
		for _, resource := range reservation.Resources {
			c := &compiler{Options: options, reservation: reservation, resource: resource, name: newName(reservation, resource, taken)}
			compiled := Policy{Policy: c.policy(), Binding: c.binding()}
			if err := checkSize(compiled.Policy); err != nil {
				return nil, fmt.Errorf("reservation %q: %s: %w", reservation.Name, resource, err)
			}
			policies = append(policies, compiled)
		}
	}
	return policies, nil
}

// newName returns "apigw-guardian-clusterroles" for the built-in reservation, and adds the name of any other one. A further resource
// of the same kind has a number.
func newName(reservation *reserved.Reservation, resource *reserved.Resource, taken map[string]bool) string {
	parts := []string{guardian.Name}
	if !reservation.BuiltIn {
		parts = append(parts, reservation.Name)
	}
	parts = append(parts, resource.GVR.Resource)
	if IsExistence(resource) {
		parts = append(parts, "deletion")
	}
	base := strings.Join(parts, "-")
	name := base
	for n := 2; taken[name]; n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	taken[name] = true
	return name
}

func checkSize(p *admissionregistrationv1.ValidatingAdmissionPolicy) error {
	for _, variable := range p.Spec.Variables {
		if n := utf8.RuneCountInString(variable.Expression); n > maxExpression {
			return fmt.Errorf("%w: variable %q has %d characters, and the API server accepts %d: reserve it with the engine webhook",
				ErrTooLarge, variable.Name, n, maxExpression)
		}
	}
	return nil
}

// compiler writes the policy of one resource.
type compiler struct {
	Options

	reservation *reserved.Reservation
	resource    *reserved.Resource
	name        string
	variables   []admissionregistrationv1.Variable
	nodes       []node
}

func (c *compiler) meta() metav1.ObjectMeta {
	name := c.name
	if c.Static {
		name += staticSuffix
	}
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{
		"app.kubernetes.io/name": guardian.Name, ReservationLabel: c.reservation.Name,
	}}
}

func (c *compiler) typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: kind}
}

func (c *compiler) policy() *admissionregistrationv1.ValidatingAdmissionPolicy {
	c.declare()
	group := []*reserved.Resource{c.resource}
	p := &admissionregistrationv1.ValidatingAdmissionPolicy{
		TypeMeta: c.typeMeta("ValidatingAdmissionPolicy"), ObjectMeta: c.meta(),
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(admissionregistrationv1.Fail),
			MatchConstraints: &admissionregistrationv1.MatchResources{
				MatchPolicy:   new(admissionregistrationv1.Equivalent),
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: Rule(group)}},
			},
			MatchConditions: MatchConditions(group),
			Variables:       c.variables,
			Validations: []admissionregistrationv1.Validation{{
				Expression: "variables.allowed", Reason: new(metav1.StatusReasonForbidden),
				Message:           fmt.Sprintf("%s is reserved by %s and must not be changed.", c.resource.Kind, c.resource.Owner),
				MessageExpression: c.message(),
			}},
			AuditAnnotations: c.auditAnnotations(),
		},
	}
	if c.Mode == policy.Observe {
		p.Spec.FailurePolicy = new(admissionregistrationv1.Ignore)
	}
	if c.Backstop {
		p.Spec.ParamKind = &admissionregistrationv1.ParamKind{
			APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration",
		}
		p.Spec.MatchConditions = append(p.Spec.MatchConditions, c.noWebhook())
	}
	return p
}

func (c *compiler) binding() *admissionregistrationv1.ValidatingAdmissionPolicyBinding {
	meta := c.meta()
	b := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		TypeMeta: c.typeMeta("ValidatingAdmissionPolicyBinding"), ObjectMeta: meta,
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        meta.Name,
			ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	if c.Mode == policy.Observe {
		b.Spec.ValidationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Warn, admissionregistrationv1.Audit}
	}
	if c.Backstop {
		b.Spec.ParamRef = &admissionregistrationv1.ParamRef{
			Name: guardian.WebhookConfiguration, ParameterNotFoundAction: new(admissionregistrationv1.AllowAction),
		}
	}
	return b
}

// noWebhook holds unless the webhook configuration, which is the parameter, sends requests about the resource to the guard, and refuses
// them if the guard cannot be called.
func (c *compiler) noWebhook() admissionregistrationv1.MatchCondition {
	keys := KeysOf(c.resource)
	return admissionregistrationv1.MatchCondition{
		Name: "webhook-does-not-decide",
		Expression: fmt.Sprintf("!params.webhooks.exists(w, w.name.endsWith(%s) && w.failurePolicy == 'Fail'"+
			" && w[?'namespaceSelector'].orValue({}) == {} && w[?'objectSelector'].orValue({}) == {}"+
			" && w.rules.exists(r, %s in r.apiGroups && %s in r.resources && request.operation in r.operations)"+
			" && w.matchConditions.exists(c, c.expression.contains(%s)))",
			Quote("."+guardian.WebhookDomain), Quote(c.resource.GVR.Group), Quote(c.resource.GVR.Resource),
			Quote(Quote(slices.Concat(keys.Names, keys.Prefixes, keys.Accounts)[0]))),
	}
}

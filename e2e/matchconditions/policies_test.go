// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// policyServers are the servers with policies: since 1.30.
func policyServers() map[string]server {
	return map[string]server{"1.30": servers["1.30"], "1.37": servers["1.37"]}
}

// engine is a reserved set, compiled to policies as an API server does.
type engine struct {
	server     server
	policies   []*admissionregistrationv1.ValidatingAdmissionPolicy
	validators []validating.Validator
}

func newEngine(t testing.TB, s server, set *reserved.Set, options policies.Options) *engine {
	t.Helper()
	compiled, err := policies.Compile(set, options)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{server: s}
	for _, p := range compiled {
		e.policies = append(e.policies, p.Policy)
		e.validators = append(e.validators, s.validator(t, p.Policy))
	}
	return e
}

// validator is compilePolicy of k8s.io/apiserver/pkg/admission/plugin/policy/validating.
func (s server) validator(t testing.TB, p *admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(s.version))
	if err != nil {
		t.Fatal(err)
	}
	declarations := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	var variables []plugincel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, declarations, environment.NewExpressions)
	compile := func(expressions ...plugincel.ExpressionAccessor) plugincel.ConditionEvaluator {
		t.Helper()
		compiled := compiler.CompileCondition(expressions, declarations, environment.NewExpressions)
		if errs := compiled.CompilationErrors(); len(errs) > 0 {
			t.Fatalf("%s: %v", p.Name, errs)
		}
		return compiled
	}
	var conditions, annotations []plugincel.ExpressionAccessor
	for _, c := range p.Spec.MatchConditions {
		conditions = append(conditions, new(matchconditions.MatchCondition(c)))
	}
	for _, a := range p.Spec.AuditAnnotations {
		annotations = append(annotations, &validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression})
	}
	validation := p.Spec.Validations[0]
	return validating.NewValidator(
		compile(&validating.ValidationCondition{Expression: validation.Expression, Message: validation.Message, Reason: validation.Reason}),
		matchconditions.NewMatcher(compile(conditions...), p.Spec.FailurePolicy, "policy", "validate", p.Name),
		compile(annotations...),
		compile(&validating.MessageExpressionCondition{MessageExpression: validation.MessageExpression}),
		p.Spec.FailurePolicy, nil)
}

// verdict is what the policies say to a request.
type verdict struct {
	denied          bool
	message, reason string
	failed          string
}

// judge asks the policies of the request's kind. None is asked about a write that its match conditions skip.
func (e *engine) judge(t testing.TB, request *admissionv1.AdmissionRequest) verdict {
	t.Helper()
	var v verdict
	for i, p := range e.policies {
		rule := p.Spec.MatchConstraints.ResourceRules[0]
		if rule.APIGroups[0] != request.Resource.Group || rule.Resources[0] != request.Resource.Resource {
			continue
		}
		var namespace *corev1.Namespace
		if request.Namespace != "" {
			namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: request.Namespace}}
		}
		result := e.validators[i].Validate(t.Context(), schema.GroupVersionResource(request.Resource), e.server.attributes(t, request),
			runtime.Object(nil), namespace, celconfig.RuntimeCELCostBudget, nil)
		for _, decision := range result.Decisions {
			if decision.Evaluation == validating.EvalError {
				v.failed += decision.Message
			}
			if decision.Action == validating.ActionDeny {
				v.denied, v.message = true, decision.Message
			}
		}
		for _, annotation := range result.AuditAnnotations {
			if annotation.Error != "" {
				v.failed += annotation.Key + ": " + annotation.Error
			}
			if annotation.Key == "reason" {
				v.reason = annotation.Value
			}
		}
	}
	return v
}

// exceptions are the reviews of the corpus about which the engines differ, as docs/decisions/engine-policy.md lists them: what CEL
// cannot look up. true: the policy denies, and the webhook allows.
var exceptions = map[string]bool{
	"account-drops-reference-of-secret-gone": true,
	"delete-token-of-account-gone":           true,
	"fill-empty-token-for-another-uid":       false,
	"fill-empty-token-with-a-wrong-ca":       false,
	"fill-empty-token-with-another-accounts": false,
	"fill-empty-token-with-another-secrets":  false,
	"fill-empty-token-with-another-uids":     false,
	"fill-empty-token-with-garbage":          false,
}

func TestPoliciesAgreeWithTheWebhookOverTheCorpus(t *testing.T) {
	cases, err := corpus.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for name, server := range policyServers() {
		e := newEngine(t, server, builtIn(t), policies.Options{Writers: policy.DefaultWriters()})
		for _, c := range cases {
			t.Run(c.Name+" on "+name, func(t *testing.T) {
				var review, answer admissionv1.AdmissionReview
				for body, into := range map[string]any{string(c.Review): &review, string(c.Answer): &answer} {
					if err := json.Unmarshal([]byte(body), into); err != nil {
						t.Fatal(err)
					}
				}
				got, want := e.judge(t, review.Request), answer.Response
				if got.failed != "" {
					t.Errorf("an expression failed: %s", got.failed)
				}
				if denies, isException := exceptions[c.Name]; isException {
					if got.denied != denies || want.Allowed != denies {
						t.Errorf("denied: %t (webhook: %t), and the list of exceptions says %t", got.denied, !want.Allowed, denies)
					}
					return
				}
				if got.denied == want.Allowed {
					t.Fatalf("denied: %t, want %t: %s %s; the webhook says %v", got.denied, !want.Allowed, got.reason, got.message, want.AuditAnnotations)
				}
				if got.denied {
					requireMessage(t, got, want)
				}
			})
		}
	}
}

// requireMessage wants the reason and the sentence of the webhook. A policy names a list, where the webhook names its elements.
func requireMessage(t *testing.T, got verdict, want *admissionv1.AdmissionResponse) {
	t.Helper()
	if got.reason != want.AuditAnnotations["reason"] {
		t.Errorf("reason: got %q, want %q", got.reason, want.AuditAnnotations["reason"])
	}
	wantStart, wantPaths := cutPaths(want.Result.Message)
	gotStart, gotPaths := cutPaths(got.message)
	if gotStart != wantStart || len(gotPaths) > len(wantPaths) || len(wantPaths) > 0 && len(gotPaths) == 0 {
		t.Errorf("message:\n got %q\nwant %q", got.message, want.Result.Message)
	}
	if strings.Contains(want.Result.Message, " more)") {
		return // in no order
	}
	for _, path := range wantPaths {
		if !slices.ContainsFunc(gotPaths, func(got string) bool { return strings.HasPrefix(path, got) }) {
			t.Errorf("message %q lacks %s", got.message, path)
		}
	}
}

// cutPaths cuts the list of paths out of a message, and what follows the sentence.
func cutPaths(message string) (sentence string, paths []string) {
	message, _, _ = strings.Cut(message, "\n")
	sentence, list, found := strings.Cut(policy.SentenceOf(message), ": ")
	if !found {
		return sentence, nil
	}
	return sentence, strings.Split(strings.TrimSuffix(list, ")."), ", ")
}

func decodeRequest(t testing.TB, request *admissionv1.AdmissionRequest) *policy.Request {
	t.Helper()
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := webhook.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
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
	// params is the parameter of each policy; nil for none.
	params runtime.Object
}

func newEngine(tb testing.TB, s server, set *reserved.Set, options policies.Options) *engine {
	tb.Helper()
	compiled, err := policies.Compile(set, options)
	if err != nil {
		tb.Fatal(err)
	}
	e := &engine{server: s}
	for _, p := range compiled {
		e.policies = append(e.policies, p.Policy)
		e.validators = append(e.validators, s.validator(tb, p.Policy))
	}
	return e
}

// validator is compilePolicy of k8s.io/apiserver/pkg/admission/plugin/policy/validating.
func (s server) validator(tb testing.TB, p *admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	tb.Helper()
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(s.version))
	if err != nil {
		tb.Fatal(err)
	}
	declarations := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	var variables []plugincel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, declarations, environment.NewExpressions)
	compile := func(expressions ...plugincel.ExpressionAccessor) plugincel.ConditionEvaluator {
		tb.Helper()
		compiled := compiler.CompileCondition(expressions, declarations, environment.NewExpressions)
		if errs := compiled.CompilationErrors(); len(errs) > 0 {
			tb.Fatalf("%s: %v", p.Name, errs)
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
func (e *engine) judge(tb testing.TB, request *admissionv1.AdmissionRequest) verdict {
	tb.Helper()
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
		result := e.validators[i].Validate(tb.Context(), schema.GroupVersionResource(request.Resource), e.server.attributes(tb, request),
			e.params, namespace, celconfig.RuntimeCELCostBudget, nil)
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

func decodeRequest(tb testing.TB, request *admissionv1.AdmissionRequest) *policy.Request {
	tb.Helper()
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		tb.Fatal(err)
	}
	decoded, err := webhook.Decode(body)
	if err != nil {
		tb.Fatal(err)
	}
	return decoded
}

// fields and values are what the fuzz target changes in reviews.
var fields = [][]string{
	{"rules"},
	{"roleRef"},
	{"subjects"},
	{"type"},
	{"immutable"},
	{"secrets"},
	{"imagePullSecrets"},
	{"automountServiceAccountToken"},
	{"aggregationRule"},
	{"data"},
	{"data", "token"},
	{"data", "ca.crt"},
	{"data", "namespace"},
	{"data", "more"},
	{"metadata", "labels"},
	{"metadata", "labels", "a"},
	{"metadata", "labels", lastUsed},
	{"metadata", "annotations"},
	{"metadata", "annotations", "kubernetes.io/service-account.name"},
	{"metadata", "annotations", "kubernetes.io/service-account.uid"},
	{"metadata", "annotations", corev1.LastAppliedConfigAnnotation},
	{"metadata", "annotations", "a"},
	{"metadata", "finalizers"},
	{"metadata", "ownerReferences"},
	{"metadata", "deletionTimestamp"},
	{"metadata", "managedFields"},
	{"metadata", "resourceVersion"},
	{"metadata", "generateName"},
}

var values = []string{
	`null`, `""`, `"a"`, `"2026-11-27"`, `"apigw-ingress"`, `"YQ=="`, `"a3ViZS1zeXN0ZW0="`, `true`, `false`, `{}`, `[]`,
	`"kubernetes.io/service-account-token"`, `"2026-11-27T00:00:00Z"`, `["a"]`, `{"a":"b"}`, `[{"name":"a"}]`, `[{"name":"a"},{"name":"b"}]`,
	`[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]`, `[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]`,
	`[{"kind":"ServiceAccount","name":"apigw-ingress","namespace":"kube-system"}]`,
	`{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"apigw-ingress-clusterrole"}`,
	`{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]}`, `[{"apiVersion":"v1","kind":"ConfigMap","name":"a","uid":"b"}]`,
	`[{"manager":"kubectl","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:token":{}}}}]`,
	`[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:secrets":{}}}]`,
}

var users = []authenticationv1.UserInfo{
	{Username: "alice", Groups: []string{"system:authenticated"}}, {Username: "system:kube-controller-manager"}, apiServer(),
}

// FuzzPoliciesAgreeWithTheWebhook changes the reviews of the corpus, and wants the same verdict of both engines. What a policy cannot know
// may differ one way: it denies, as a lookup that does not hold would, or it allows what package policy allows if its lookups hold.
func FuzzPoliciesAgreeWithTheWebhook(f *testing.F) {
	cases, err := corpus.Cases()
	if err != nil {
		f.Fatal(err)
	}
	for i := range cases {
		f.Add(uint8(i), []byte{})
		for j := i % 16; j < len(fields); j += 16 {
			f.Add(uint8(i), []byte{byte(j), byte(7 * j), 1, byte(j + 1), byte(3 * j), 0})
		}
	}
	engines := map[string]*engine{}
	for name, server := range policyServers() {
		engines[name] = newEngine(f, server, builtIn(f), policies.Options{Writers: policy.DefaultWriters()})
	}
	set := builtIn(f)
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		c := cases[int(which)%len(cases)]
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(c.Review, &review); err != nil {
			t.Fatal(err)
		}
		request := review.Request
		for ; len(script) >= 3; script = script[3:] {
			mutate(t, request, script[0], script[1], script[2])
		}
		if !isPossible(request) {
			return
		}
		judged := (&policy.Policy{Set: set, Writers: policy.DefaultWriters()}).Review(decodeRequest(t, request))
		holds := make([]bool, len(judged.Lookups()))
		without := judged.Decide(policy.Facts{Holds: slices.Clone(holds)})
		for i := range holds {
			holds[i] = true
		}
		with := judged.Decide(policy.Facts{Holds: holds})
		for name, e := range engines {
			got := e.judge(t, request)
			switch {
			case got.failed != "":
				t.Errorf("%s: %s on %s: an expression failed: %s", c.Name, request.Operation, name, got.failed)
			case !got.denied && !with.Allowed && !fills(got, with):
				t.Errorf("%s on %s: the policy allows (%s), and the webhook denies: %s %v", c.Name, name, got.reason, with.Reason, with.Changed)
			case got.denied && without.Allowed && !isStricter(request):
				t.Errorf("%s on %s: the policy denies (%s), and the webhook allows: %s %v", c.Name, name, got.message, without.Reason, without.Changed)
			}
		}
	})
}

// mutate sets or removes a field of the new object, of the old one, or of both, or sets the user.
func mutate(t *testing.T, request *admissionv1.AdmissionRequest, field, value, target byte) {
	t.Helper()
	if target%8 == 7 {
		request.UserInfo = users[int(value)%len(users)]
		return
	}
	for i, raw := range []*runtime.RawExtension{&request.Object, &request.OldObject} {
		if (target%4+1)&byte(1<<i) == 0 || len(raw.Raw) == 0 {
			continue
		}
		object := map[string]any{}
		var member any
		if err := errors.Join(json.Unmarshal(raw.Raw, &object), json.Unmarshal([]byte(values[int(value)%len(values)]), &member)); err != nil {
			t.Fatal(err)
		}
		path := fields[int(field)%len(fields)]
		if target&4 != 0 {
			unstructured.RemoveNestedField(object, path...)
		} else if unstructured.SetNestedField(object, member, path...) != nil {
			continue
		}
		encoded, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		raw.Raw = encoded
	}
}

// isPossible reports whether an API server could send the objects: it decodes them into their types, and encodes these. The request gets
// the result.
func isPossible(request *admissionv1.AdmissionRequest) bool {
	kind := schema.GroupVersionKind(request.Kind)
	for _, raw := range []*runtime.RawExtension{&request.Object, &request.OldObject} {
		if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
			continue
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw.Raw, &kind, nil)
		if err != nil {
			return false
		}
		if raw.Raw, err = json.Marshal(object); err != nil {
			return false
		}
	}
	return true
}

// fills reports whether a policy is documented to allow more: it does not look into the values that fill an empty token Secret.
func fills(got verdict, decision policy.Decision) bool {
	filled := []string{"metadata.annotations[kubernetes.io/service-account.uid]", "data[ca.crt]", "data.namespace", "data.token"}
	return got.reason == string(policy.SystemWrite) &&
		!slices.ContainsFunc(decision.Changed, func(path string) bool { return !slices.Contains(filled, path) })
}

// isStricter reports whether a policy is documented to deny more: it does not look into the annotation last-applied-configuration.
func isStricter(request *admissionv1.AdmissionRequest) bool {
	var meta struct{ Metadata metav1.ObjectMeta }
	return json.Unmarshal(request.Object.Raw, &meta) == nil && meta.Metadata.Annotations[corev1.LastAppliedConfigAnnotation] != ""
}

// The API server limits the cost of an expression, and of a policy. A reservation has 50 resources with 50 keys each here.
func TestPoliciesOfFiftyResourcesStayBelowTheCostLimits(t *testing.T) {
	data := map[string]any{}
	for i := range 50 {
		data[fmt.Sprintf("key-%d", i)] = strings.Repeat("value", 20)
	}
	var resources []any
	for i := range 50 {
		resources = append(resources, map[string]any{"manifest": map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "data": data,
			"metadata": map[string]any{"name": fmt.Sprintf("name-%d", i), "namespace": "shop"},
		}})
	}
	file, err := json.Marshal(map[string]any{
		"apiVersion": reserved.APIVersion, "kind": reserved.Kind, "metadata": map[string]any{"name": "shop"},
		"spec": map[string]any{"owner": "Shop", "resources": resources},
	})
	if err != nil {
		t.Fatal(err)
	}
	set, err := reserved.LoadFiles("test", map[string]string{"shop.json": string(file)})
	if err != nil {
		t.Fatal(err)
	}
	object := resources[49].(map[string]any)["manifest"]
	for name, server := range policyServers() {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, server, set, policies.Options{Writers: policy.DefaultWriters()})
			request := &admissionv1.AdmissionRequest{
				UID: "1", Operation: admissionv1.Update, UserInfo: users[0], Name: "name-49", Namespace: "shop",
				Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"},
				Resource: metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"},
				Object:   raw(t, object), OldObject: raw(t, object),
			}
			if got := e.judge(t, request); got.denied || got.reason != string(policy.NoChange) || got.failed != "" {
				t.Errorf("no change: got %+v", got)
			}
			data["key-7"] = "another"
			request.Object = raw(t, object)
			if got := e.judge(t, request); !got.denied || got.reason != string(policy.ReservedUpdate) || got.failed != "" ||
				!strings.Contains(got.message, "(changed: data.key-7)") {
				t.Errorf("a change: got %+v", got)
			}
			request.Object, request.OldObject = request.OldObject, request.Object
			if got := e.judge(t, request); got.denied || got.reason != string(policy.Restoration) || got.failed != "" {
				t.Errorf("a restoration: got %+v", got)
			}
			data["key-7"] = data["key-8"]
		})
	}
}

func TestABackstopDecidesOnlyWithoutAnIntactWebhook(t *testing.T) {
	cases, err := corpus.Cases()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == "delete-token" })
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(cases[i].Review, &review); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edit  func(*admissionregistrationv1.ValidatingWebhook)
		isOff bool
	}{
		"as the guard builds it": {func(*admissionregistrationv1.ValidatingWebhook) {}, true},
		"with failurePolicy Ignore": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.FailurePolicy = new(admissionregistrationv1.Ignore)
		}, false},
		"with a selector": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		}, false},
		"without DELETE": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].Operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Create}
		}, false},
		"for other names": {func(w *admissionregistrationv1.ValidatingWebhook) {
			w.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "reserved-object", Expression: "false"}}
		}, false},
	} {
		registered := registration.Build(builtIn(t), registration.Options{FailurePolicy: admissionregistrationv1.Fail})
		for i := range registered.Webhooks {
			test.edit(&registered.Webhooks[i])
		}
		for release, server := range policyServers() {
			t.Run(name+" on "+release, func(t *testing.T) {
				e := newEngine(t, server, builtIn(t), policies.Options{Writers: policy.DefaultWriters(), Backstop: true})
				e.params = registered
				if got := e.judge(t, review.Request); got.failed != "" || got.denied == test.isOff {
					t.Errorf("got %+v, want denied: %t", got, !test.isOff)
				}
			})
		}
	}
}

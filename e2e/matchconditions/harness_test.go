// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// servers are the ways in which API servers evaluate a match condition: the oldest that this project supports has the CEL
// environment of 1.28 and sees objects as generic maps; 1.37 sees them by reflection of their Go types.
var servers = map[string]server{
	"1.28": {version: version.MajorMinor(1, 28), generic: true},
	"1.30": {version: version.MajorMinor(1, 30), generic: true},
	"1.37": {version: version.MajorMinor(1, 37)},
}

type server struct {
	version *version.Version
	generic bool
}

func builtIn(tb testing.TB) *reserved.Set {
	tb.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// webhooksOf returns the webhooks of a resource.
func webhooksOf(set *reserved.Set, resource string) []*admissionregistrationv1.ValidatingWebhook {
	var found []*admissionregistrationv1.ValidatingWebhook
	webhooks := registration.Build(set, registration.Options{FailurePolicy: admissionregistrationv1.Fail}).Webhooks
	for i := range webhooks {
		if slices.Contains(webhooks[i].Rules[0].Resources, resource) {
			found = append(found, &webhooks[i])
		}
	}
	return found
}

// webhookOf returns the built-in webhook of a resource.
func webhookOf(t *testing.T, resource string) *admissionregistrationv1.ValidatingWebhook {
	t.Helper()
	webhooks := webhooksOf(builtIn(t), resource)
	if len(webhooks) != 1 {
		t.Fatalf("%d webhooks for %s, want 1", len(webhooks), resource)
	}
	return webhooks[0]
}

// conditions compiles the match conditions of a webhook as an API server does for one that is written now.
func (s server) conditions(tb testing.TB, webhook *admissionregistrationv1.ValidatingWebhook) plugincel.ConditionEvaluator {
	tb.Helper()
	var expressions []plugincel.ExpressionAccessor
	for _, condition := range webhook.MatchConditions {
		expressions = append(expressions, new(matchconditions.MatchCondition(condition)))
	}
	compiled := plugincel.NewConditionCompiler(environment.MustBaseEnvSet(s.version)).CompileCondition(
		expressions, plugincel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.NewExpressions)
	if errs := compiled.CompilationErrors(); len(errs) > 0 {
		tb.Fatalf("%s: %v", webhook.Name, errs)
	}
	return compiled
}

// skips reports whether the API server would not send the request to the guard. An error of a condition fails the test: it
// would refuse the write in the name of no webhook.
func (s server) skips(t *testing.T, request *admissionv1.AdmissionRequest) bool {
	t.Helper()
	return !matches(t, s.matcher(t, webhookOf(t, request.Resource.Resource)), s.attributes(t, request))
}

func (s server) matcher(tb testing.TB, webhook *admissionregistrationv1.ValidatingWebhook) matchconditions.Matcher {
	tb.Helper()
	return matchconditions.NewMatcher(s.conditions(tb, webhook), webhook.FailurePolicy, "webhook", "validate", webhook.Name)
}

func matches(tb testing.TB, matcher matchconditions.Matcher, attributes *admission.VersionedAttributes) bool {
	tb.Helper()
	result := matcher.Match(tb.Context(), attributes, nil, nil)
	if result.Error != nil {
		tb.Fatal(result.Error)
	}
	return result.Matches
}

func (s server) attributes(tb testing.TB, request *admissionv1.AdmissionRequest) *admission.VersionedAttributes {
	tb.Helper()
	kind := schema.GroupVersionKind(request.Kind)
	object, old := s.object(tb, kind, request.Object.Raw), s.object(tb, kind, request.OldObject.Raw)
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(object, old, kind, request.Namespace, request.Name,
			schema.GroupVersionResource(request.Resource), request.SubResource, admission.Operation(request.Operation), nil, false,
			&user.DefaultInfo{Name: request.UserInfo.Username, Groups: request.UserInfo.Groups}),
		VersionedKind: kind,
	}
	if object != nil {
		attributes.VersionedObject.Set(object)
	}
	if old != nil {
		attributes.VersionedOldObject.Set(old)
	}
	return attributes
}

func (s server) object(tb testing.TB, kind schema.GroupVersionKind, raw []byte) runtime.Object {
	tb.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if s.generic {
		object := &unstructured.Unstructured{}
		if err := json.Unmarshal(raw, object); err != nil {
			tb.Fatal(err)
		}
		return object
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw, &kind, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return object
}

// judged returns what the policy says to a request. No lookup holds.
func judged(t *testing.T, request *admissionv1.AdmissionRequest) policy.Reason {
	t.Helper()
	return reasonOf(t, &policy.Policy{Set: builtIn(t), Writers: policy.DefaultWriters()}, request)
}

func reasonOf(t *testing.T, p *policy.Policy, request *admissionv1.AdmissionRequest) policy.Reason {
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
	return p.Review(decoded).Decide(policy.Facts{}).Reason
}

// needsNoGuard says that nothing is lost if the guard never sees a request.
func needsNoGuard(reason policy.Reason) bool {
	return slices.Contains([]policy.Reason{policy.NotReserved, policy.NoChange, policy.SystemWrite}, reason)
}

func apiServer() authenticationv1.UserInfo {
	return authenticationv1.UserInfo{Username: "system:apiserver", Groups: []string{"system:masters", "system:authenticated"}}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func TestDefectOf(t *testing.T) {
	t.Parallel()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := URLEndpoint("https://127.0.0.1:1", "/validate")
	if err != nil {
		t.Fatal(err)
	}
	type configuration = admissionregistrationv1.ValidatingWebhookConfiguration
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	for name, test := range map[string]struct {
		edit func(*configuration)
		want Defect
	}{
		"in place":        {func(*configuration) {}, ""},
		"with another CA": {func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = []byte("x") }, ""},
		"with a label":    {func(c *configuration) { c.Labels["a"] = "b" }, ""},
		"rewritten, and still complete": {func(c *configuration) {
			c.Webhooks[0].NamespaceSelector = selector
			c.Annotations[guardian.RegistrationProblemAnnotation] = "protection is complete"
		}, ""},
		"rewritten, and partial": {func(c *configuration) {
			c.Webhooks[0].NamespaceSelector = selector
			c.Annotations[guardian.RegistrationProblemAnnotation] = Partial
		}, Rewritten},
		"being deleted":               {func(c *configuration) { c.DeletionTimestamp = new(metav1.Now()) }, Missing},
		"with a namespace selector":   {func(c *configuration) { c.Webhooks[0].NamespaceSelector = selector }, Rewritten},
		"with an object selector":     {func(c *configuration) { c.Webhooks[1].ObjectSelector = selector }, Rewritten},
		"without a webhook":           {func(c *configuration) { c.Webhooks = c.Webhooks[1:] }, Rewritten},
		"with another failure policy": {func(c *configuration) { c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore) }, Rewritten},
		"with a selector and the digest of it": {func(c *configuration) {
			c.Webhooks[0].NamespaceSelector = selector
			c.Annotations[guardian.RevisionAnnotation] = revision(c.Webhooks)
		}, Rewritten},
	} {
		live := Build(set, Options{Endpoint: endpoint, CABundle: []byte("ca"), FailurePolicy: admissionregistrationv1.Fail, ProbeNamespace: "guard"})
		test.edit(live)
		if got, text := DefectOf(live); got != test.want || (text == "") != (got == "") {
			t.Errorf("%s: got %q, %q, want %q", name, got, text, test.want)
		}
	}
	if got, _ := DefectOf(nil); got != Missing {
		t.Errorf("absent: got %q", got)
	}
	for policy, want := range map[admissionregistrationv1.FailurePolicyType]bool{
		admissionregistrationv1.Fail: false, admissionregistrationv1.Ignore: true,
	} {
		if got := Observes(Build(set, Options{Endpoint: endpoint, FailurePolicy: policy})); got != want {
			t.Errorf("%s: observes %t", policy, got)
		}
	}
	if Observes(nil) {
		t.Error("an absent one observes")
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const keptRole = "apigw-guardian-clusterroles"

func builtIn() *reserved.Set {
	set, err := reserved.BuiltIn()
	if err != nil {
		panic(err)
	}
	return set
}

// newEngine returns an engine on a cluster with some objects.
func newEngine(name string, observes bool, objects ...runtime.Object) engine {
	cluster := live.Cluster{
		Client: fake.NewClientset(objects...), Dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()), Set: builtIn(), Namespace: "ns",
	}
	cmd := &cobra.Command{}
	return engine{name: name, isChart: true, cluster: cluster, cmd: cmd, wait: time.Minute, observes: observes}
}

func policyObjects(t *testing.T, annotations map[string]string) []runtime.Object {
	t.Helper()
	compiled, err := policies.Compile(builtIn(), policies.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var objects []runtime.Object
	for _, p := range compiled {
		p.Policy.Annotations = annotations
		objects = append(objects, p.Policy, p.Binding)
	}
	return objects
}

func webhookObject(failure admissionregistrationv1.FailurePolicyType) runtime.Object {
	endpoint, _ := registration.ServiceEndpoint("ns/guard:443", "/validate")
	return registration.Build(builtIn(), registration.Options{
		Endpoint: endpoint, FailurePolicy: failure, SideDoors: admissionregistrationv1.Ignore, ProbeNamespace: "ns",
	})
}

func TestTheEnginePolicyEndsTheWebhookOnlyWithItsPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		engine  engine
		isEnded bool
		isError bool
	}{
		"its policies are absent":         {newEngine(enginePolicy, true, webhookObject("Fail")), false, true},
		"its policies are there":          {newEngine(enginePolicy, true, append(policyObjects(t, nil), webhookObject("Fail"))...), true, false},
		"another engine":                  {newEngine(engineBoth, true, append(policyObjects(t, nil), webhookObject("Fail"))...), false, false},
		"its policies do not deny so far": {newEngine(enginePolicy, false, append(policyObjects(t, nil), webhookObject("Fail"))...), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				test.engine.cmd.SetContext(t.Context())
				err := test.engine.begin(t.Context())
				_, found := test.engine.cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().
					Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
				if (err != nil) != test.isError || apierrors.IsNotFound(found) != test.isEnded {
					t.Errorf("got %v, and the webhook configuration: %v", err, found)
				}
			})
		})
	}
}

func TestTheEngineWebhookEndsKeptPoliciesOnceItDenies(t *testing.T) {
	t.Parallel()
	kept := map[string]string{keepAnnotation: "keep"}
	for name, test := range map[string]struct {
		engine  engine
		isEnded bool
		err     error
	}{
		"the guard has not registered": {newEngine(engineWebhook, false, policyObjects(t, kept)...), false, errNotRegistered},
		"it does not fail closed yet":  {newEngine(engineWebhook, false, append(policyObjects(t, kept), webhookObject("Ignore"))...), false, errNotRegistered},
		"it fails closed":              {newEngine(engineWebhook, false, append(policyObjects(t, kept), webhookObject("Fail"))...), true, nil},
		"it observes":                  {newEngine(engineBoth, true, append(policyObjects(t, kept), webhookObject("Ignore"))...), true, nil},
		"policies that a user applied": {newEngine(engineWebhook, false, append(policyObjects(t, nil), webhookObject("Fail"))...), false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				err := test.engine.finish(t.Context())
				_, found := test.engine.cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), keptRole, metav1.GetOptions{})
				if !errors.Is(err, test.err) || apierrors.IsNotFound(found) != test.isEnded {
					t.Errorf("got %v, and the policy: %v", err, found)
				}
			})
		})
	}
}

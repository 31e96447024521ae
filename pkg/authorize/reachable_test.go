// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

func TestCheckReachable(t *testing.T) {
	t.Parallel()
	endpoint, err := registration.ServiceEndpoint("guard/apigw-guardian:443", "/validate")
	if err != nil {
		t.Fatal(err)
	}
	build := func(problem, namespace string) *admissionregistrationv1.ValidatingWebhookConfiguration {
		return registration.Build(shop.Set(t, shop.Reservation), registration.Options{
			Endpoint: endpoint, ProbeNamespace: namespace, ReachabilityProblem: problem, FailurePolicy: admissionregistrationv1.Ignore,
		})
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "guard", Name: "x", Labels: map[string]string{discoveryv1.LabelServiceName: "apigw-guardian"}},
		Ports:      []discoveryv1.EndpointPort{{Name: new("webhook"), Port: new(int32(10250))}},
	}
	refused := &apierrors.StatusError{ErrStatus: metav1.Status{
		Code: 500, Message: `failed calling webhook "unlocks.apigw-guardian.io": context deadline exceeded`,
	}}
	denied := &apierrors.StatusError{ErrStatus: metav1.Status{
		Code: 403, Message: `admission webhook "unlocks.apigw-guardian.io" denied the request: it is reached`,
	}}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, guardian.Replicas, nil)
	for name, test := range map[string]struct {
		live   *admissionregistrationv1.ValidatingWebhookConfiguration
		more   []runtime.Object
		answer error
		want   Status
		says   string
	}{
		"no guard yet":                     {want: Skipped},
		"a guard of an older version":      {live: build("", ""), want: Skipped},
		"a guard that is reached":          {live: build("", "guard"), answer: denied, want: Pass},
		"a port that is closed":            {live: build("", "guard"), more: []runtime.Object{slice}, answer: refused, want: Fail, says: "TCP port 10250 from the control plane"},
		"a port that is not known":         {live: build("", "guard"), answer: refused, want: Fail, says: "webhook.port (9443 by default)"},
		"a caller who may not try":         {live: build("", "guard"), answer: forbidden, want: Unknown},
		"one who may not, and a complaint": {live: build("no way in", "guard"), answer: forbidden, want: Fail, says: "no way in"},
		"a registration not in effect yet": {live: build("", "guard"), want: Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := test.more
			if test.live != nil {
				objects = append(objects, test.live)
			}
			a, client, _ := newFake(t, objects, nil)
			client.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
			check := a.checkReachable(t.Context())
			if check.Status != test.want || !strings.Contains(check.Message+check.Remedy, test.says) {
				t.Errorf("got %+v, want %s", check, test.want)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
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

// unreachable returns an Authorizer whose webhook answers from the given attempt on, and the count of the attempts.
func unreachable(t *testing.T, reachedAt int) (a *Authorizer, attempts *int) {
	t.Helper()
	endpoint, err := registration.ServiceEndpoint("guard/apigw-guardian:443", "/validate")
	if err != nil {
		t.Fatal(err)
	}
	a, client := newAuthorized(t, "", shop.TokenSecret("clerk-token-own"), registration.Build(shop.Set(t, shop.Reservation),
		registration.Options{Endpoint: endpoint, ProbeNamespace: "guard", FailurePolicy: admissionregistrationv1.Ignore}))
	a.connect = connectTo(t, acceptor(clerkUser, shop.AllowAll))
	attempts = new(int)
	client.PrependReactor("patch", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetNamespace() != "guard" {
			return false, nil, nil
		}
		if *attempts++; *attempts < reachedAt {
			return true, nil, &apierrors.StatusError{ErrStatus: metav1.Status{Code: 500, Message: `failed calling webhook "unlocks.apigw-guardian.io": refused`}}
		}
		return true, nil, &apierrors.StatusError{ErrStatus: metav1.Status{
			Code: 403, Message: `admission webhook "unlocks.apigw-guardian.io" denied the request: it is reached`,
		}}
	})
	return a, attempts
}

func TestAuthorizeReachable(t *testing.T) {
	t.Run("waits for a guard that starts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, attempts := unreachable(t, 4)
			result, err := a.AuthorizeReachable(t.Context(), Options{})
			if err != nil || *attempts != 4 || len(result.Proofs) != 1 {
				t.Errorf("%d attempts: %v, %+v", *attempts, err, result)
			}
		})
	})
	t.Run("gives up at the end of the wait, with the check", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, attempts := unreachable(t, 1000)
			_, err := a.AuthorizeReachable(t.Context(), Options{Wait: 9 * time.Second})
			failed, ok := errors.AsType[*PreflightError](err)
			if !ok || failed.Failed[0].ID != WebhookReachable || *attempts != 5 {
				t.Errorf("%d attempts: %v", *attempts, err)
			}
		})
	})
	t.Run("ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, attempts := unreachable(t, 1000)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := a.AuthorizeReachable(ctx, Options{}); err == nil || *attempts != 1 {
				t.Errorf("%d attempts: %v", *attempts, err)
			}
		})
	})
	t.Run("does not repeat what another check fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, attempts := unreachable(t, 1000)
			a.cluster.Client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.27.4"}
			if _, err := a.AuthorizeReachable(t.Context(), Options{}); err == nil || *attempts != 1 {
				t.Errorf("%d attempts: %v", *attempts, err)
			}
		})
	})
}

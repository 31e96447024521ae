// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

func networkLoadBalancer(ingress ...corev1.LoadBalancerIngress) *corev1.Service {
	service := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	service.Namespace, service.Name = networkNamespace, networkService
	service.Status.LoadBalancer.Ingress = ingress
	return service
}

func TestCheckPrivateNetwork(t *testing.T) {
	clusterIP := networkLoadBalancer()
	clusterIP.Spec.Type = corev1.ServiceTypeClusterIP
	const name = "Service default/kubernetes-intranet"
	tests := map[string]struct {
		service *corev1.Service
		err     error
		status  Status
		message string
	}{
		"passes with an IP address": {
			service: networkLoadBalancer(corev1.LoadBalancerIngress{IP: "10.0.0.7"}), status: Pass, message: name + " has the address 10.0.0.7",
		},
		"passes with a host name": {
			service: networkLoadBalancer(corev1.LoadBalancerIngress{}, corev1.LoadBalancerIngress{Hostname: "cls.internal"}),
			status:  Pass, message: name + " has the address cls.internal",
		},
		"fails without an ingress":            {service: networkLoadBalancer(), status: Fail, message: name + " has no address"},
		"fails with an ingress of no address": {service: networkLoadBalancer(corev1.LoadBalancerIngress{}), status: Fail, message: name + " has no address"},
		"fails with a Service of another type": {
			service: clusterIP, status: Fail, message: name + " has type ClusterIP, not LoadBalancer",
		},
		"is unknown without the Service": {status: Unknown, message: name + " is absent; TKE shows private network access by it"},
		"is unknown if the Service may not be read": {
			err:    apierrors.NewForbidden(corev1.Resource("services"), networkService, errors.New("no access")),
			status: Unknown, message: "cannot read " + name + `: services "kubernetes-intranet" is forbidden: no access`,
		},
		"is unknown after any other error": {
			err: errors.New("connection refused"), status: Unknown, message: "cannot read " + name + ": connection refused",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []runtime.Object
			if test.service != nil {
				objects = append(objects, test.service)
			}
			client := fake.NewClientset(objects...)
			client.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
				return test.err != nil, nil, test.err
			})
			check := CheckPrivateNetwork(t.Context(), client)
			if check.Status != test.status || check.Message != test.message || (check.Remedy == "") != (test.status == Pass) {
				t.Errorf("got %+v, want %s, %q", check, test.status, test.message)
			}
		})
	}
}

// Each answer of Tencent Cloud, and each reason why there is none, is in the check, with its own remedy.
func TestPreflightAsksTencentCloud(t *testing.T) {
	open, closed := networkLoadBalancer(corev1.LoadBalancerIngress{IP: "10.0.0.7"}), networkLoadBalancer()
	for name, test := range map[string]struct {
		reason tke.Reason
		shown  *corev1.Service
		mode   NetworkMode
		want   Status
	}{
		"enabled, whatever the cluster shows":     {tke.Enabled, closed, NetworkEnforce, Pass},
		"disabled, whatever the cluster shows":    {tke.Disabled, open, NetworkEnforce, Fail},
		"being enabled":                           {tke.Pending, open, NetworkEnforce, Fail},
		"not created":                             {tke.CreateFailed, open, NetworkEnforce, Fail},
		"disabled is a warning, if asked for":     {tke.Disabled, open, NetworkWarn, Unknown},
		"the check is skipped on request":         {tke.Disabled, open, NetworkSkip, Skipped},
		"no credentials":                          {tke.NoCredentials, open, NetworkEnforce, Unknown},
		"bad credentials":                         {tke.BadCredentials, open, NetworkEnforce, Unknown},
		"wrong clock":                             {tke.WrongClock, open, NetworkEnforce, Unknown},
		"not allowed":                             {tke.NotAllowed, open, NetworkEnforce, Unknown},
		"unknown cluster":                         {tke.UnknownCluster, open, NetworkEnforce, Unknown},
		"wrong region":                            {tke.WrongRegion, open, NetworkEnforce, Unknown},
		"throttled":                               {tke.Throttled, open, NetworkEnforce, Unknown},
		"timed out":                               {tke.TimedOut, open, NetworkEnforce, Unknown},
		"unreachable":                             {tke.Unreachable, open, NetworkEnforce, Unknown},
		"unexpected":                              {tke.Unexpected, open, NetworkEnforce, Unknown},
		"no answer, and the cluster shows no way": {tke.Throttled, closed, NetworkEnforce, Fail},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, []runtime.Object{test.shown}, nil)
			check := a.checkPrivateNetwork(t.Context(), Options{PrivateNetwork: test.mode, AskCloud: func(context.Context) tke.Answer {
				answer := tke.Answer{Reason: test.reason, Message: "the API's message"}
				if test.reason != tke.Enabled {
					answer.Remedy = "the API's remedy"
				}
				return answer
			}})
			isAnswered := test.mode != NetworkSkip
			isTold := answered(test.reason) || strings.Contains(check.Message, "("+string(test.reason)+": ")
			if check.Status != test.want || isAnswered && (!isTold || !strings.Contains(check.Message, "the API's message")) ||
				strings.Contains(check.Remedy, "the API's remedy") != (isAnswered && test.reason != tke.Enabled) {
				t.Errorf("got %+v, want %s", check, test.want)
			}
		})
	}
}

func answered(reason tke.Reason) bool {
	return tke.Answer{Reason: reason}.PrivateNetwork() != "Unknown"
}

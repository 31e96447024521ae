// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

func TestJudgeVersion(t *testing.T) {
	tests := map[string]struct {
		git  string
		want Status
	}{
		"the oldest release is supported":                 {"v1.28.0", Pass},
		"the newest release is supported":                 {"v1.37.2", Pass},
		"a suffix of a distribution does not matter":      {"v1.30.0-tke.4", Pass},
		"a pre-release of a supported release is one":     {"v1.28.0-rc.1", Pass},
		"an older release fails":                          {"v1.27.16", Fail},
		"a newer release is not known":                    {"v1.38.0", Unknown},
		"a later major version is not known":              {"v2.0.0", Unknown},
		"a version that cannot be read is not known":      {"main", Unknown},
		"a version that is not there at all is not known": {"", Unknown},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := checkVersion(test.git, nil)
			if check.Status != test.want {
				t.Errorf("got %s (%s), want %s", check.Status, check.Message, test.want)
			}
			if check.Status != Pass && check.Remedy == "" {
				t.Error("there is no remedy")
			}
		})
	}
}

func TestPrivateNetworkModes(t *testing.T) {
	closed := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	closed.Namespace, closed.Name = networkNamespace, networkService
	open := closed.DeepCopy()
	open.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.7"}}
	tests := map[string]struct {
		service []runtime.Object
		mode    NetworkMode
		want    Status
		remedy  bool
	}{
		"access that is on passes":                          {[]runtime.Object{open}, NetworkEnforce, Pass, false},
		"access that is off fails":                          {[]runtime.Object{closed}, NetworkEnforce, Fail, true},
		"the zero mode enforces":                            {[]runtime.Object{closed}, "", Fail, true},
		"access that is off is a warning, if asked for":     {[]runtime.Object{closed}, NetworkWarn, Unknown, true},
		"access that is not known is a warning in any case": {nil, NetworkEnforce, Unknown, true},
		"nobody looks when asked not to":                    {[]runtime.Object{closed}, NetworkSkip, Skipped, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, test.service, nil)
			check := a.checkPrivateNetwork(t.Context(), Options{PrivateNetwork: test.mode})
			if check.Status != test.want || strings.Contains(check.Remedy, networkRemedy) != test.remedy {
				t.Errorf("got %+v, want %s", check, test.want)
			}
		})
	}
}

func TestTKECheck(t *testing.T) {
	node := func(provider string) runtime.Object {
		node := &corev1.Node{Spec: corev1.NodeSpec{ProviderID: provider}}
		node.Name = "n-" + strings.Split(provider, ":")[0]
		return node
	}
	tests := map[string]struct {
		git   string
		nodes []runtime.Object
		err   error
		want  Status
	}{
		"the version names TKE":                     {git: "v1.30.0-tke.4", want: Pass},
		"a node is a machine of Tencent Cloud":      {git: "v1.30.0", nodes: []runtime.Object{node("kind://x"), node("qcloud:///1/ins-1")}, want: Pass},
		"there is no sign":                          {git: "v1.30.0", nodes: []runtime.Object{node("kind://x")}, want: Skipped},
		"nodes that cannot be listed leave it open": {git: "v1.30.0", err: errors.New("forbidden"), want: Unknown},
		"the version does without nodes":            {git: "v1.30.0-tke.4", err: errors.New("forbidden"), want: Pass},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, client, _ := newFake(t, test.nodes, nil)
			if test.err != nil {
				client.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, test.err
				})
			}
			if check := a.checkTKE(t.Context(), test.git); check.Status != test.want {
				t.Errorf("got %+v, want %s", check, test.want)
			}
		})
	}
}

func TestChecksComeInTheirOrder(t *testing.T) {
	a, client, _ := newFake(t, nil, nil)
	shop.Allow(client, shop.AllowAll)
	var ids []string
	for _, check := range a.Preflight(t.Context(), Options{}).Checks {
		ids = append(ids, check.ID)
		if check.ID == "reserved-kinds" && check.Status != Pass {
			t.Errorf("got %+v", check)
		}
	}
	want := []string{
		"kubernetes-version", "admin-role", "private-network", "reserved-kinds", "existing-resources", "tke-cluster",
		"webhook-reachable",
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

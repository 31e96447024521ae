// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

func TestReservedKindsThatAreNotServed(t *testing.T) {
	served := func(kinds ...string) []metav1.APIResource {
		var resources []metav1.APIResource
		for _, kind := range kinds {
			resources = append(resources, metav1.APIResource{
				Name: strings.ToLower(kind) + "s", Kind: kind, Namespaced: !strings.HasPrefix(kind, "Cluster"),
			})
		}
		return resources
	}
	core, rbac := served("ServiceAccount", "Secret"), served("ClusterRole", "ClusterRoleBinding")
	for name, test := range map[string]struct {
		core, rbac []metav1.APIResource
		err        error
		want       Status
		// problems is the number of messages, joined on one line.
		problems int
	}{
		"every kind is served passes":              {core: core, rbac: rbac, want: Pass, problems: 1},
		"one absent kind fails":                    {core: core, rbac: rbac[:1], want: Fail, problems: 1},
		"two absent kinds fail with both":          {core: core, rbac: nil, want: Fail, problems: 2},
		"absent kinds of two groups fail with all": {core: core[:1], rbac: nil, want: Fail, problems: 3},
		"an API server that does not answer":       {err: errBroken, want: Unknown, problems: 2},
	} {
		t.Run(name, func(t *testing.T) {
			a, client, _ := newFake(t, nil, nil)
			client.Resources = []*metav1.APIResourceList{
				{GroupVersion: "v1", APIResources: test.core}, {GroupVersion: "rbac.authorization.k8s.io/v1", APIResources: test.rbac},
			}
			client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
				return test.err != nil, nil, test.err
			})
			got := a.checkServed()
			if got.Status != test.want || strings.Contains(got.Message, "\n") || strings.Count(got.Message, "; ")+1 != test.problems {
				t.Errorf("got %+v, want %s with %d problems on one line", got, test.want, test.problems)
			}
			if (got.Remedy == "") != (test.want == Pass) {
				t.Errorf("the remedy of %s is %q", got.Status, got.Remedy)
			}
		})
	}
}

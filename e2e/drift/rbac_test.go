// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
)

// With the permissions of the chart and no other, the leader restores each kind and creates it anew, and it proves protection.
func TestTheChartGrantsWhatTheLeaderNeeds(t *testing.T) {
	world := take(t)
	everyone := scenario.Write{
		Method: http.MethodDelete, Path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/scenario", ContentType: scenario.JSON,
	}
	tamper(t, world, everyone) // World binds everyone to cluster-admin
	for value, mode := range map[string]drift.Mode{"heal.enabled=false": drift.ReportOnly, "authorize.enabled=false": drift.Authorize} {
		remove := install(t, value)
		guard := startGuard(t, mode, "--proof-interval=1s", "--leader-elect", "--owner-clusterrole="+guardian.Name,
			"--kubeconfig="+accountKubeconfig(t))
		awaitNoted(t, world)
		for _, object := range world.Objects() {
			if mode == drift.ReportOnly && object.GVR.Group != "" {
				continue // without escalate and bind, RBAC refuses each patch of a role or binding
			}
			harness.Eventually(t, "the guard proves "+object.String(), func() (bool, any) {
				got, err := guard.Metric(t.Context(), `apigw_guardian_protected{resource="`+object.String()+`"}`)
				return got == 1, err
			})
		}
		if mode == drift.Authorize {
			for _, object := range world.Objects() {
				tamper(t, world, scenario.Merge(object, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`))
				harness.Eventually(t, "it is restored: "+object.String(), inSync(t, world, object))
			}
			for _, object := range []*scenario.Object{world.Binding, world.Role, world.Account} {
				tamper(t, world, scenario.Delete(object))
			}
			harness.Eventually(t, "all is back", inSync(t, world, world.Objects()...))
		}
		log, err := guard.Log()
		if err != nil || bytes.Contains(log, []byte("is forbidden")) {
			t.Errorf("%s: the chart does not grant what the guard needs: %v\n%s", value, err, log)
		}
		guard.Stop()
		remove()
	}
}

// install applies the accounts, roles and bindings of the chart, and returns what removes them.
func install(t *testing.T, value string) (remove func()) {
	t.Helper()
	helms, err := program.Config().Builder.Build(t.Context(), testbed.Helm())
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), helms["helm"], "template", guardian.Name, "../../charts/apigw-guardian",
		"--namespace="+guardian.Namespace, "--no-hooks", "--set="+value)
	rendered, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	config := harness.Of(t).Cluster.UnguardedConfig()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(harness.Clients(t).Discovery()))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: guardian.Namespace}}
	_, err = harness.Clients(t).CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	var removals []func()
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kind := object.GetKind()
		if kind != "ServiceAccount" && !strings.HasSuffix(kind, "Role") && !strings.HasSuffix(kind, "RoleBinding") {
			continue
		}
		mapping, err := mapper.RESTMapping(object.GroupVersionKind().GroupKind())
		if err != nil {
			t.Fatal(err)
		}
		resource := client.Resource(mapping.Resource).Namespace(object.GetNamespace())
		if _, err := resource.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		removals = append(removals, func() {
			if err := resource.Delete(context.WithoutCancel(t.Context()), object.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	return func() {
		for _, remove := range removals {
			remove()
		}
	}
}

// accountKubeconfig writes a kubeconfig of the guard's ServiceAccount.
func accountKubeconfig(t *testing.T) string {
	t.Helper()
	answer, err := harness.Clients(t).CoreV1().ServiceAccounts(guardian.Namespace).CreateToken(
		t.Context(), guardian.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := testbed.WriteKubeconfig(path, harness.Of(t).Cluster.TokenConfig(answer.Status.Token)); err != nil {
		t.Fatal(err)
	}
	return path
}

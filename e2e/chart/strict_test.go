// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// strict is a namespace as administrators make it for teams: the strictest Pod Security Standard, limits and a quota.
const strict = `
apiVersion: v1
kind: Namespace
metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: strict, namespace: strict}
spec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, max: {cpu: "1", memory: 256Mi}, min: {cpu: 10m, memory: 16Mi}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: strict, namespace: strict}
spec: {hard: {requests.cpu: "2", requests.memory: 1Gi, limits.cpu: "4", limits.memory: 2Gi, pods: "10"}}
`

// The replicas, the Jobs and the test Pod are admitted where others are strict.
func TestPodsAreAdmittedToAStrictNamespace(t *testing.T) {
	kubectl(t, "apply", "--filename", writeFile(t, strict))
	for _, values := range []string{"replicas=3", "webhook.port=443", "hooks.enabled=false", "authorize.retired=true"} {
		args := []string{"--namespace", "strict", "--set", values}
		objects := parse(t, template(t, "helm", directory, args...))
		for _, object := range objects {
			if object.GetKind() == "ServiceAccount" {
				kubectl(t, "apply", "--filename", writeFile(t, text(t, object.Object)))
			}
		}
		pods := 0
		for _, object := range objects {
			if pod := podOf(object); pod != nil {
				kubectl(t, "create", "--dry-run=server", "--filename", writeFile(t, text(t, pod)))
				pods++
			}
		}
		if pods < 2 {
			t.Errorf("%s: %d Pods", values, pods)
		}
	}
}

// podOf returns a Pod of the object, or nil.
func podOf(object unstructured.Unstructured) map[string]any {
	pod := object.Object
	if object.GetKind() != "Pod" {
		template, found, _ := unstructured.NestedMap(object.Object, "spec", "template")
		if !found {
			return nil
		}
		pod = template
	}
	pod = maps.Clone(pod)
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	_ = unstructured.SetNestedField(pod, "strict", "metadata", "namespace")
	_ = unstructured.SetNestedField(pod, object.GetName(), "metadata", "name")
	return pod
}

func text(t *testing.T, object map[string]any) string {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
)

const datumDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: data.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Datum, plural: data}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`

// reserveDatum returns a directory with a reservation of one Datum. field is a line of its entry.
func reserveDatum(t *testing.T, field string) string {
	t.Helper()
	return directoryWith(t, "datum.yaml", `apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: datum}
spec:
  owner: Data Owner
  resources:
  - manifest: {apiVersion: example.org/v1, kind: Datum, metadata: {name: a}}
`+field)
}

func directoryWith(t *testing.T, name, content string) string {
	t.Helper()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return directory
}

func TestAKindWithAnIrregularPluralIsProtected(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	cluster := harness.Of(t).Cluster
	kubectl := func(args ...string) (string, error) {
		_, says, err := cluster.Kubectl(t.Context(), args...)
		return says, err
	}
	definition := filepath.Join(directoryWith(t, "crd.yaml", datumDefinition), "crd.yaml")
	if says, err := kubectl("apply", "-f", definition); err != nil {
		t.Fatal(err, says)
	}
	t.Cleanup(func() { removeDatum(t) })
	if says, err := kubectl("wait", "--for=condition=Established", "crd/data.example.org"); err != nil {
		t.Fatal(err, says)
	}
	var result struct {
		Checks []struct{ ID, Status, Message string }
	}
	harness.Run(t, "preflight", "-o", "json", "--reservations", reserveDatum(t, "")).Require(t, 3).Into(t, &result)
	for _, check := range result.Checks {
		if isKinds := check.ID == "reserved-kinds"; isKinds && (check.Status != "Fail" || !strings.Contains(check.Message, "resource: data")) {
			t.Errorf("got %+v", check)
		}
	}
	given := reserveDatum(t, "    resource: data\n")
	harness.StartGuard(t, "--reservations", given)
	harness.Run(t, "authorize", "--reservations", given).Require(t, 0)
	if says, err := kubectl("label", "data.example.org", "a", "x=y"); err == nil || !strings.Contains(says, "reserved by Data Owner") {
		t.Errorf("a label on the reserved Datum: %v, %s", err, says)
	}
	report.Line(t, "a kind with an irregular plural: preflight names the plural, and the guard protects the kind")
}

func removeDatum(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	for _, object := range []struct {
		group, resource, name string
	}{{"example.org", "data", "a"}, {"apiextensions.k8s.io", "customresourcedefinitions", "data.example.org"}} {
		gvr := schema.GroupVersionResource{Group: object.group, Version: "v1", Resource: object.resource}
		if err := client.Resource(gvr).Delete(ctx, object.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}

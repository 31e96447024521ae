// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// TestTheGalleryOfReservations authorizes, attacks and verifies the examples of docs/reservations.
func TestTheGalleryOfReservations(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	gallery, err := filepath.Abs("../docs/reservations")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGallery(t) })
	for _, namespace := range []string{"ingress-nginx", "velero"} {
		kubectl(t, "create", "namespace", namespace)
	}
	harness.StartGuard(t, "--reservations", gallery)
	with := func(args ...string) harness.Ran { return harness.Run(t, append(args, "--reservations", gallery)...) }
	with("authorize").Require(t, 0)
	with("status").Require(t, 0)
	var result struct {
		Attacks []struct{ Resource, Got string }
	}
	with("verify", "-o", "json").Require(t, 0).Into(t, &result)
	denied := map[string]int{}
	for _, attack := range result.Attacks {
		if attack.Got == "denied" {
			denied[attack.Resource]++
		}
	}
	for _, attack := range []struct{ owner, args string }{
		{"Ingress NGINX", "annotate clusterrole ingress-nginx a=b"},
		{"Ingress NGINX", "-n ingress-nginx delete role ingress-nginx-admission"},
		{"Ingress NGINX", "delete ingressclass nginx"},
		{"Ingress NGINX", "delete namespace ingress-nginx"},
		{"kube-state-metrics", "delete clusterrolebinding kube-state-metrics"},
		{"kube-state-metrics", `-n kube-system patch serviceaccount kube-state-metrics -p {"automountServiceAccountToken":true}`},
		{"Velero", "set subject clusterrolebinding velero --user=mallory"},
		{"Velero", "-n velero create -f testdata/gallery/velero-token.yaml"},
	} {
		_, says, err := harness.Of(t).Cluster.Kubectl(t.Context(), strings.Fields(attack.args)...)
		if err == nil || !strings.Contains(says, "reserved by "+attack.owner) {
			t.Errorf("kubectl %s: %v, %s", attack.args, err, says)
		}
	}
	report.Line(t, "the gallery: three further reservations authorized by their files, %d of their resources attacked", len(denied))
}

func removeGallery(t *testing.T) {
	t.Helper()
	unguarded, err := scenario.NewClient(harness.Of(t).Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	for _, path := range []string{
		rbac + "clusterrolebindings/ingress-nginx", rbac + "clusterrolebindings/ingress-nginx-admission",
		rbac + "clusterroles/ingress-nginx", rbac + "clusterroles/ingress-nginx-admission",
		rbac + "clusterrolebindings/kube-state-metrics", rbac + "clusterroles/kube-state-metrics",
		rbac + "clusterrolebindings/velero", "/apis/networking.k8s.io/v1/ingressclasses/nginx",
		"/api/v1/namespaces/kube-system/serviceaccounts/kube-state-metrics",
		"/api/v1/namespaces/ingress-nginx", "/api/v1/namespaces/velero",
	} {
		answer, err := unguarded.Do(context.WithoutCancel(t.Context()), scenario.Write{Method: "DELETE", Path: path, ContentType: scenario.JSON})
		if err != nil || answer.Code >= 300 && answer.Code != 404 {
			t.Errorf("delete %s: %d %s, %v", path, answer.Code, answer.Body, err)
		}
	}
}

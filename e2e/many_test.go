// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// Many reservations share the webhooks, are authorized in the order of their files, and each is protected.
func TestFiftyReservations(t *testing.T) {
	harness.Take(t)
	tenants, webhooks := harness.Full(50, 6), harness.Full(14, 10) // side doors share a webhook up to 100 resources
	harness.World(t)
	directory := t.TempDir()
	must(t)(nil, scenario.WriteTenants(directory, tenants))
	t.Cleanup(func() { removeTenants(t) })
	guard := harness.StartGuard(t, "--reservations", directory)
	client := harness.Clients(t)

	type result struct {
		Lines  []struct{ Resource, Outcome string }
		Proofs []any
	}
	var authorized, again result
	took := timed(func() {
		harness.Run(t, "authorize", "-o", "json", "--private-network", "skip", "--reservations", directory).Require(t, 0).Into(t, &authorized)
	})
	tookAgain := timed(func() {
		harness.Run(t, "authorize", "-o", "json", "--private-network", "skip", "--reservations", directory).Require(t, 0).Into(t, &again)
	})
	var roles []string
	for i, line := range authorized.Lines {
		if again.Lines[i].Resource != line.Resource || again.Lines[i].Outcome != "unchanged" {
			t.Errorf("line %d of the second run: %+v, of the first: %+v", i, again.Lines[i], line)
		}
		if filepath.Dir(line.Resource) == "clusterroles.rbac.authorization.k8s.io" {
			roles = append(roles, filepath.Base(line.Resource))
		}
	}
	if len(authorized.Lines) != 4*(tenants+1) || !slices.IsSorted(roles) || len(authorized.Proofs) != tenants+1 {
		t.Errorf("%d lines, want %d; %d proofs; ClusterRoles: %q", len(authorized.Lines), 4*(tenants+1), len(authorized.Proofs), roles)
	}

	var status struct {
		Authorized, Protected bool
		Protections           []verify.Protection
	}
	tookStatus := timed(func() {
		harness.Run(t, "status", "-o", "json", "--reservations", directory).Require(t, 0).Into(t, &status)
	})
	if !status.Authorized || !status.Protected || len(status.Protections) > 0 {
		t.Errorf("status: %+v", status)
	}
	report.Line(t, "%d reservations: authorize %.1f s, again %.1f s; status %.1f s", tenants, took, tookAgain, tookStatus)

	live, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	live.ManagedFields = nil
	if size := live.Size(); len(live.Webhooks) != webhooks || size > 64<<10 {
		t.Errorf("%d webhooks and %d bytes, want %d and at most %d", len(live.Webhooks), size, webhooks, 64<<10)
	}

	before := countRequests(t, guard)
	label := []byte(`{"metadata":{"labels":{"x":"y"}}}`)
	for _, role := range []string{"apigw-ingress-clusterrole", "tenant-00-clusterrole", fmt.Sprintf("tenant-%02d-clusterrole", tenants-1)} {
		_, err := client.RbacV1().ClusterRoles().Patch(t.Context(), role, types.MergePatchType, label, metav1.PatchOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("label %s: %v, want %d", role, err, http.StatusForbidden)
		}
	}
	must(t)(client.RbacV1().ClusterRoles().Patch(t.Context(), "view", types.MergePatchType, label, metav1.PatchOptions{DryRun: []string{"All"}}))
	if calls := countRequests(t, guard) - before; calls != 3 {
		t.Errorf("the guard was called %d times, want 3", calls)
	}
}

// timed returns how many seconds f takes.
func timed(f func()) float64 {
	started := time.Now()
	f()
	return time.Since(started).Seconds()
}

func removeTenants(t *testing.T) {
	t.Helper()
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, gvr := range []schema.GroupVersionResource{
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Version: "v1", Resource: "serviceaccounts"},
		{Version: "v1", Resource: "secrets"},
	} {
		var objects dynamic.ResourceInterface = client.Resource(gvr)
		if gvr.Group == "" {
			objects = client.Resource(gvr).Namespace(metav1.NamespaceSystem)
		}
		selector := metav1.ListOptions{LabelSelector: scenario.TenantLabel}
		if err := objects.DeleteCollection(context.WithoutCancel(t.Context()), metav1.DeleteOptions{}, selector); err != nil {
			t.Error(err)
		}
	}
}

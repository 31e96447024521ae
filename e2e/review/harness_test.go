// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package review tests what an administrator sees of the audit records, on a real API server.
package review

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func TestMain(m *testing.M) {
	harness.Main(m, 1, func(ctx context.Context, bed *harness.Bed) error { return bed.Cluster.InstallCRDs(ctx) })
}

// recordClient reads and writes records as the admin.
func recordClient(t *testing.T) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(harness.Of(t).Cluster.AdminConfig(), client.Options{Scheme: scheme, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noRecords empties the cluster of records.
func noRecords(t *testing.T) {
	t.Helper()
	if err := recordClient(t).DeleteAllOf(t.Context(), &v1alpha1.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
}

// put stores a record, and returns its name.
func put(t *testing.T, record *v1alpha1.AuditRecord) string {
	t.Helper()
	if err := recordClient(t).Create(t.Context(), record.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	return record.Name
}

// countMore counts one more write of a stored record.
func countMore(t *testing.T, name string) {
	t.Helper()
	record := &v1alpha1.AuditRecord{}
	if err := recordClient(t).Get(t.Context(), client.ObjectKey{Name: name}, record); err != nil {
		t.Fatal(err)
	}
	record.Spec.Count++
	record.Spec.Counts[0].Count++
	record.Spec.LastTime = metav1.NowMicro()
	if err := recordClient(t).Update(t.Context(), record); err != nil {
		t.Fatal(err)
	}
}

// denial is a record of one denied edit by alice, so long ago; change makes it another.
func denial(ago time.Duration, change func(*audit.Event)) *v1alpha1.AuditRecord {
	fact := audit.Event{
		Time: time.Now().Add(-ago), RequestUID: "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", Outcome: v1alpha1.Denied, Operation: "UPDATE",
		Object: v1alpha1.ParseObjectReference("secrets/kube-system/reserved"), Reason: "ReservedUpdate", Message: `Secret "reserved" must not be updated (changed: data.token).`,
		Changed: []string{"data.token"}, User: v1alpha1.User{Name: "alice", Groups: []string{"system:authenticated"}}, Source: v1alpha1.SourceGuard,
	}
	if change != nil {
		change(&fact)
	}
	return records.Of(&fact, 1)
}

// kubeconfigOf is that of a user who may do with records what the verbs say, and no more.
func kubeconfigOf(t *testing.T, user string, verbs ...string) string {
	t.Helper()
	if len(verbs) > 0 {
		clients := harness.Clients(t)
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.Group}, Resources: []string{"auditrecords"}, Verbs: verbs}},
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		}
		_, err := clients.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
		_, bindErr := clients.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
		if err := errors.Join(err, bindErr); err != nil {
			t.Fatal(err)
		}
	}
	return harness.Kubeconfig(t, user)
}

// namesOf are those that a list has printed as JSON.
func namesOf(t *testing.T, list harness.Ran) []string {
	t.Helper()
	var result v1alpha1.AuditRecordList
	list.Require(t, 0).Into(t, &result)
	names := []string{}
	for i := range result.Items {
		names = append(names, result.Items[i].Name)
	}
	return names
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}

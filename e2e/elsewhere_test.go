// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// TestNothingElsewhereIsTouched is row R2 of the targets: the same names in another namespace, collections that are deleted,
// and a namespace that ends, all with a guard that hangs, so that a single call of it would show.
func TestNothingElsewhereIsTouched(t *testing.T) {
	harness.Take(t)
	harness.World(t)
	guard := harness.StartGuard(t)
	hang(t, guard)
	client := harness.Clients(t)
	const namespace = "elsewhere"
	must(t)(client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
	}, metav1.CreateOptions{}))
	must(t)(client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "apigw-ingress"},
	}, metav1.CreateOptions{}))
	must(t)(client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: "apigw-ingress-token-x", Annotations: map[string]string{corev1.ServiceAccountNameKey: "apigw-ingress"},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}))
	must(t)(client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Labels: map[string]string{"collection": "elsewhere"}},
	}, metav1.CreateOptions{}))
	for name, err := range map[string]error{
		"ClusterRoles": client.RbacV1().ClusterRoles().DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{LabelSelector: "collection=elsewhere"}),
		"Secrets of kube-system": client.CoreV1().Secrets(metav1.NamespaceSystem).DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{LabelSelector: "collection=elsewhere"}),
		"Secrets elsewhere": client.CoreV1().Secrets(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{}),
		"the Namespace": client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	harness.Eventually(t, "the namespace is gone", func() (bool, any) {
		live, err := client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), live.Status
	})
	wake(t, guard)
	if calls := countRequests(t, guard); calls != 0 {
		t.Errorf("the guard was called %d times", calls)
	}
	report.Line(t, "R2: deletecollection and a namespace's end elsewhere, past a guard that hangs: 0 calls")
}

// countRequests returns how many reviews the guard has answered.
func countRequests(t *testing.T, guard *testbed.Guard) int {
	t.Helper()
	count, err := guard.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return count
}

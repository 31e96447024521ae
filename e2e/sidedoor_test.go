// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

const doorAccount = "apigw-ingress"

// warnings keeps what the API server warns of.
type warnings struct {
	sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.Lock()
	defer w.Unlock()
	w.texts = append(w.texts, text)
}

func clientOf(t *testing.T, edit func(*rest.Config)) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(harness.Of(t).Cluster.AdminConfig())
	edit(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func doorPod(name, account string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		ServiceAccountName: account, NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}},
	}}
}

func doorSubject() []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: doorAccount, Namespace: metav1.NamespaceSystem}}
}

func roleRef(name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
}

// doors are the side doors of the built-in reservation, by the resource that their records name.
func doors(t *testing.T, csr *certificatesv1.CertificateSigningRequest) map[string]func(context.Context, kubernetes.Interface) error {
	t.Helper()
	csr = csr.DeepCopy()
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test",
	}}
	return map[string]func(context.Context, kubernetes.Interface) error{
		"serviceaccounts/kube-system/apigw-ingress": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(
				ctx, doorAccount, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
		"clusterrolebindings.rbac.authorization.k8s.io/door-account": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "door-account"}, RoleRef: roleRef("view"), Subjects: doorSubject(),
			}, metav1.CreateOptions{})
			return err
		},
		"rolebindings.rbac.authorization.k8s.io/default/door-role": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "door-role"}, RoleRef: roleRef("apigw-ingress-clusterrole"),
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "mallory"}},
			}, metav1.CreateOptions{})
			return err
		},
		"clusterrolebindings.rbac.authorization.k8s.io/door-later": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "door-later"}, RoleRef: roleRef("view"),
			}, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
			_, err = c.RbacV1().ClusterRoleBindings().Update(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "door-later"}, RoleRef: roleRef("view"), Subjects: doorSubject(),
			}, metav1.UpdateOptions{})
			return err
		},
		"pods/kube-system/door": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods(metav1.NamespaceSystem).Create(ctx, doorPod("door", doorAccount), metav1.CreateOptions{})
			return err
		},
		"certificatesigningrequests.certificates.k8s.io/door": func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
			return err
		},
	}
}

func requestCertificate(t *testing.T) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:serviceaccount:kube-system:" + doorAccount},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	created, err := harness.Clients(t).CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "door"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	must(t)(created, err)
	return created
}

// Each side door is denied with enforce, and allowed with a warning and a record by default. Kubelets' requests and other accounts pass.
func TestSideDoorsAreEnforcedOrObserved(t *testing.T) {
	bed := harness.Take(t)
	harness.World(t)
	ctx, csr := t.Context(), requestCertificate(t)
	unguarded, err := kubernetes.NewForConfig(bed.Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	pod, err := unguarded.CoreV1().Pods(metav1.NamespaceSystem).Create(ctx, doorPod("mounts", doorAccount), metav1.CreateOptions{})
	must(t)(pod, err)
	t.Cleanup(func() { closeDoors(t, unguarded) })

	began := time.Now().Add(-time.Second)
	guard := harness.StartGuard(t, "--side-doors=enforce")
	for object, open := range doors(t, csr) {
		if err := open(ctx, harness.Clients(t)); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "side-door-") {
			t.Errorf("%s: got %v", object, err)
		}
		requireSideDoor(t, object, v1alpha1.Denied, began)
	}
	kubelet := clientOf(t, func(config *rest.Config) {
		config.Impersonate = rest.ImpersonationConfig{UserName: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
	})
	bound := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	before := countRequests(t, guard)
	must(t)(kubelet.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, doorAccount, bound, metav1.CreateOptions{}))
	must(t)(harness.Clients(t).CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{}))
	must(t)(harness.Clients(t).CoreV1().Pods("default").Create(ctx, doorPod("other", "default"), metav1.CreateOptions{}))
	if calls := countRequests(t, guard) - before; calls != 0 {
		t.Errorf("the guard was called %d times for what is no side door", calls)
	}
	guard.Stop()

	began = time.Now().Add(-time.Second)
	harness.StartGuard(t)
	for object, open := range doors(t, csr) {
		heard := &warnings{}
		if err := open(ctx, clientOf(t, func(config *rest.Config) { config.WarningHandler = heard })); err != nil {
			t.Errorf("%s: got %v", object, err)
		}
		if text := strings.Join(heard.texts, "\n"); !strings.Contains(text, "apigw-guardian would deny this") {
			t.Errorf("%s: got warnings %q", object, text)
		}
		requireSideDoor(t, object, v1alpha1.WouldDeny, began)
	}
	harness.Run(t, "verify").Require(t, 0, "")
}

func requireSideDoor(t *testing.T, object string, outcome v1alpha1.Outcome, since time.Time) {
	t.Helper()
	found, err := harness.Records(t).List(t.Context(), audit.Filter{Outcome: string(outcome), Resource: `"` + object + `"`, Since: since})
	if err != nil || len(found) != 1 || found[0].Spec.Reason != string(policy.SideDoor) {
		t.Errorf("%s: got records %+v, %v", object, found, err)
	}
}

func closeDoors(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	for name, err := range map[string]error{
		"door-account": c.RbacV1().ClusterRoleBindings().Delete(ctx, "door-account", now),
		"door-later":   c.RbacV1().ClusterRoleBindings().Delete(ctx, "door-later", now),
		"door-role":    c.RbacV1().RoleBindings("default").Delete(ctx, "door-role", now),
		"door":         c.CoreV1().Pods(metav1.NamespaceSystem).Delete(ctx, "door", now),
		"mounts":       c.CoreV1().Pods(metav1.NamespaceSystem).Delete(ctx, "mounts", now),
		"other":        c.CoreV1().Pods("default").Delete(ctx, "other", now),
		"request":      c.CertificatesV1().CertificateSigningRequests().Delete(ctx, "door", now),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

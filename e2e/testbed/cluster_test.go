// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestClusterServesAndEnds(t *testing.T) {
	cluster, err := Start(t.Context(), Config{
		Version: os.Getenv("K8S_VERSION"),
		Builder: Builder{Progress: os.Stderr},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := clientOf(t, cluster.AdminConfig())

	token := mintToken(t, admin, "first")
	requireUser(t, cluster.TokenConfig(token), "system:serviceaccount:default:first")
	requireUser(t, cluster.ConfigFor("mallory", "dev"), "mallory")
	requireForbidden(t, clientOf(t, cluster.ConfigFor("mallory", "dev")))
	requireKubeconfig(t, cluster.ConfigFor("mallory", "dev"))
	requireKubectl(t, cluster)
	requireAudited(t, cluster.AuditLog(), "mallory", "first")

	pids := cluster.pids()
	cluster.StopControllerManager()
	cluster.StopAPIServer()
	cluster.StopEtcd()
	requireGone(t, pids)
	for _, start := range []func() error{
		func() error { return cluster.StartEtcd(t.Context()) },
		func() error { return cluster.StartAPIServer(t.Context()) },
		func() error {
			return cluster.StartControllerManager(t.Context(), "--root-ca-file="+cluster.RootCAFile())
		},
	} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	requireUser(t, cluster.TokenConfig(token), "system:serviceaccount:default:first")
	mintToken(t, admin, "second")

	pids = cluster.pids()
	for range 2 {
		if err := cluster.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	requireGone(t, pids)
	if _, err := os.Stat(cluster.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Stop: %v, want it removed", err)
	}
	if err := cluster.StartEtcd(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("StartEtcd after Stop = %v, want ErrStopped", err)
	}
}

func (c *Cluster) pids() []int {
	var pids []int
	for _, p := range []*process{c.etcd, c.apiServer, c.controllerManager} {
		pids = append(pids, p.command.Process.Pid)
	}
	return pids
}

func requireGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d after its end: %v, want no such process", pid, err)
		}
	}
}

func clientOf(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// mintToken creates a ServiceAccount and its token Secret, and returns the token from the controller manager.
func mintToken(t *testing.T, client kubernetes.Interface, name string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{corev1.ServiceAccountNameKey: name},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	created, err := client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return awaitToken(t, client, created)
}

func awaitToken(t *testing.T, client kubernetes.Interface, secret *corev1.Secret) string {
	t.Helper()
	seconds := int64(60)
	watch, err := client.CoreV1().Secrets(secret.Namespace).Watch(t.Context(), metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", secret.Name).String(),
		ResourceVersion: secret.ResourceVersion,
		TimeoutSeconds:  &seconds,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		if seen, ok := event.Object.(*corev1.Secret); ok && len(seen.Data[corev1.ServiceAccountTokenKey]) > 0 {
			return string(seen.Data[corev1.ServiceAccountTokenKey])
		}
	}
	t.Fatalf("the controller manager did not fill Secret %s", secret.Name)
	return ""
}

// requireUser fails the test unless the API server identifies the client as this user.
func requireUser(t *testing.T, config *rest.Config, want string) {
	t.Helper()
	var review struct {
		Status struct {
			UserInfo struct{ Username string }
		}
	}
	body := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	var answer []byte
	// The API server watches token Secrets: it may not know a new one yet.
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		var err error
		answer, err = clientOf(t, config).Discovery().RESTClient().Post().
			AbsPath("/apis/authentication.k8s.io/v1/selfsubjectreviews").
			SetHeader("Content-Type", "application/json").Body(body).DoRaw(ctx)
		if apierrors.IsUnauthorized(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer, &review); err != nil {
		t.Fatal(err)
	}
	if got := review.Status.UserInfo.Username; got != want {
		t.Errorf("user = %q, want %q", got, want)
	}
}

func requireForbidden(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	err := client.CoreV1().Secrets("default").Delete(t.Context(), "first", metav1.DeleteOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("delete by an unprivileged user: %v, want Forbidden", err)
	}
}

func requireKubeconfig(t *testing.T, config *rest.Config) {
	t.Helper()
	path := t.TempDir() + "/kubeconfig"
	if err := WriteKubeconfig(path, config); err != nil {
		t.Fatal(err)
	}
	read, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	requireUser(t, read, config.Impersonate.UserName)
}

func requireKubectl(t *testing.T, cluster *Cluster) {
	t.Helper()
	stdout, _, err := cluster.Kubectl(t.Context(), "version", "--output=json")
	if err != nil {
		t.Fatal(err)
	}
	var versions struct {
		ClientVersion, ServerVersion struct{ GitVersion, Major, Minor string }
	}
	if err := json.Unmarshal([]byte(stdout), &versions); err != nil {
		t.Fatal(err)
	}
	if got := versions.ClientVersion.GitVersion; got != DefaultKubernetesVersion {
		t.Errorf("kubectl is %s, want %s", got, DefaultKubernetesVersion)
	}
	server := versions.ServerVersion
	if got, want := server.GitVersion, cluster.Version(); got != want {
		t.Errorf("the server is %s, want %s", got, want)
	}
	if got, want := "v"+server.Major+"."+server.Minor+".", cluster.Version(); !strings.HasPrefix(want, got) {
		t.Errorf("the server's major and minor are %s, want those of %s", got, want)
	}
	if _, stderr, err := cluster.Kubectl(t.Context(), "get", "secret", "absent"); err == nil || stderr == "" {
		t.Errorf("kubectl get of an absent Secret: error %v, diagnostics %q, want both", err, stderr)
	}
}

// requireAudited fails the test unless the audit log contains the answered write.
func requireAudited(t *testing.T, path, user, name string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		var event struct {
			Level, Stage, Verb string
			ObjectRef          struct{ Name string }
			ImpersonatedUser   struct{ Username string }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		if event.ImpersonatedUser.Username == user && event.ObjectRef.Name == name &&
			event.Verb == "delete" && event.Level == "Metadata" && event.Stage == "ResponseComplete" {
			return
		}
	}
	t.Errorf("the audit log lacks the delete of %s by %s", name, user)
}

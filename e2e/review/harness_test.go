// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package review tests what an administrator sees of the audit records, on a real API server.
package review

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// shared is what all tests of this package use one after the other.
var shared struct {
	cluster *testbed.Cluster
	program string
	client  client.Client
}

func TestMain(m *testing.M) {
	os.Exit(program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program, shared.cluster = guardian, cluster
		scheme := runtime.NewScheme()
		if err := errors.Join(v1alpha1.AddToScheme(scheme), cluster.InstallCRDs(ctx)); err != nil {
			return err
		}
		var err error
		shared.client, err = client.New(cluster.AdminConfig(), client.Options{Scheme: scheme, Log: logr.Discard()})
		return err
	}))
}

// ran is one run of the program.
type ran struct {
	code           int
	stdout, stderr string
}

func guardian(t *testing.T, args ...string) ran {
	t.Helper()
	return guardianOf(t, shared.cluster.Kubeconfig(), args...)
}

func guardianOf(t *testing.T, kubeconfig string, args ...string) ran {
	t.Helper()
	command := commandOf(t, kubeconfig, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// patience ends a run that goes on for ever, such as a watch whose line does not come.
const patience = 2 * time.Minute

func commandOf(t *testing.T, kubeconfig string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, shared.program, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "TZ=UTC")
	return command
}

// require wants an exit code, and each text on either stream.
func (r ran) require(t *testing.T, code int, says ...string) ran {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	for _, text := range says {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Fatalf("it does not say %q\n%s%s", text, r.stdout, r.stderr)
		}
	}
	return r
}

func (r ran) into(t *testing.T, result any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), result); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, r.stdout)
	}
}

// lines are those of the standard output.
func (r ran) lines() []string {
	return strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
}

// noRecords empties the cluster of records.
func noRecords(t *testing.T) {
	t.Helper()
	if err := shared.client.DeleteAllOf(t.Context(), &v1alpha1.AuditRecord{}); err != nil {
		t.Fatal(err)
	}
}

// put stores a record, and returns its name.
func put(t *testing.T, record *v1alpha1.AuditRecord) string {
	t.Helper()
	if err := shared.client.Create(t.Context(), record.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	return record.Name
}

// countMore counts one more write of a stored record.
func countMore(t *testing.T, name string) {
	t.Helper()
	record := &v1alpha1.AuditRecord{}
	if err := shared.client.Get(t.Context(), client.ObjectKey{Name: name}, record); err != nil {
		t.Fatal(err)
	}
	record.Spec.Count++
	record.Spec.Counts[0].Count++
	record.Spec.LastTime = metav1.NowMicro()
	if err := shared.client.Update(t.Context(), record); err != nil {
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
	clientset, err := kubernetes.NewForConfig(shared.cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	if len(verbs) > 0 {
		role := &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.Group}, Resources: []string{"auditrecords"}, Verbs: verbs}},
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		}
		_, err := clientset.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
		_, bindErr := clientset.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
		if err := errors.Join(err, bindErr); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := testbed.WriteKubeconfig(path, shared.cluster.ConfigFor(user)); err != nil {
		t.Fatal(err)
	}
	return path
}

// namesOf are those that a list has printed as JSON.
func namesOf(t *testing.T, list ran) []string {
	t.Helper()
	var result v1alpha1.AuditRecordList
	list.require(t, 0).into(t, &result)
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/node"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// What is reserved, by name.
const (
	account = "apigw-ingress"
	role    = "apigw-ingress-clusterrole"
	binding = "apigw-ingress-clusterrole-binding"
	secret  = "apigw-ingress-token-guardian"
)

// writers is how many clients make the load.
const writers = 4

// load is forbidden writes, one after the other from each of its writers, and what came of them.
type load struct {
	stop    atomic.Bool
	writers sync.WaitGroup

	mu sync.Mutex
	// denied counts those that the guard denied, failed those that got another refusal of the API server, 5xx: it could not
	// ask the guard. Both leave what is reserved alone.
	denied, failed int
	// failure is one of those that failed.
	failure error
	// wrong holds all others: writes that went through, or ended without an answer.
	wrong []string
}

// startLoad begins to write until end is called. Each write is an edit or a deletion of each of the four in turn.
func startLoad(t *testing.T, n *node.Node) *load {
	t.Helper()
	client, err := kubernetes.NewForConfig(n.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	l := &load{}
	t.Cleanup(l.halt) // unless the test gets to its end
	writes := forbiddenWrites(client)
	for i := range writers {
		l.writers.Go(func() {
			for at := i; !l.stop.Load(); at++ {
				write := writes[at%len(writes)]
				l.count(write.name, write.do(t.Context()))
			}
		})
	}
	return l
}

func (l *load) count(name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "is reserved by"):
		l.denied++
	case code(err) >= http.StatusInternalServerError:
		l.failed++
		l.failure = err
	default:
		l.wrong = append(l.wrong, fmt.Sprintf("%s: %v", name, err))
	}
}

// code is that of the API server's answer; 0 if there was none.
func code(err error) int32 {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Code
	}
	return 0
}

func (l *load) halt() {
	l.stop.Store(true)
	l.writers.Wait()
}

// end ends the load, and fails the test for each write that was not refused as it must be.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.halt()
	if len(l.wrong) > 0 {
		t.Errorf("%d forbidden writes were not refused, for example:\n%s", len(l.wrong), strings.Join(l.wrong[:min(5, len(l.wrong))], "\n"))
	}
	if l.denied == 0 {
		t.Error("the guard denied nothing")
	}
}

// endWithoutFailure is end, and also fails the test for each write that did not reach the guard.
func (l *load) endWithoutFailure(t *testing.T) {
	t.Helper()
	l.end(t)
	if l.failed > 0 {
		t.Errorf("%d of %d forbidden writes failed on their way to the guard, such as: %v", l.failed, l.failed+l.denied, l.failure)
	}
}

// recordedDenials is what the audit records of the cluster count.
func recordedDenials(t *testing.T, n *node.Node) int64 {
	t.Helper()
	store, err := store.New(n.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.List(t.Context(), audit.Filter{Outcome: string(v1alpha1.Denied)})
	if err != nil {
		t.Fatal(err)
	}
	return audit.Summarize(records, time.UTC).Writes
}

// requireRecorded wants every denial in the records, and no more than the calls that failed, which a guard may have recorded
// before it died. What a replica has spooled is stored soon after it has started again.
func (l *load) requireRecorded(t *testing.T, n *node.Node, before int64) {
	t.Helper()
	least, most := before+int64(l.denied), before+int64(l.denied+l.failed)
	var got int64
	harness.Eventually(t, fmt.Sprintf("the records count %d denials", least), func() (bool, any) {
		got = recordedDenials(t, n)
		return got >= least, got
	})
	if got > most {
		t.Errorf("the records count %d denials more than before, want %d, and %d more at the most for calls that failed",
			got-before, l.denied, l.failed)
	}
}

type forbiddenWrite struct {
	name string
	do   func(context.Context) error
}

func forbiddenWrites(client kubernetes.Interface) []forbiddenWrite {
	const mark = `{"metadata":{"labels":{"a":"b"}}}`
	roles, bindings := client.RbacV1().ClusterRoles(), client.RbacV1().ClusterRoleBindings()
	accounts, secrets := client.CoreV1().ServiceAccounts("kube-system"), client.CoreV1().Secrets("kube-system")
	patch := func(_ any, err error) error { return err }
	return []forbiddenWrite{
		{"patch role", func(ctx context.Context) error {
			return patch(roles.Patch(ctx, role, types.MergePatchType, []byte(mark), metav1.PatchOptions{}))
		}},
		{"patch binding", func(ctx context.Context) error {
			return patch(bindings.Patch(ctx, binding, types.MergePatchType, []byte(mark), metav1.PatchOptions{}))
		}},
		{"patch account", func(ctx context.Context) error {
			return patch(accounts.Patch(ctx, account, types.MergePatchType, []byte(mark), metav1.PatchOptions{}))
		}},
		{"patch secret", func(ctx context.Context) error {
			return patch(secrets.Patch(ctx, secret, types.MergePatchType, []byte(mark), metav1.PatchOptions{}))
		}},
		{"delete role", func(ctx context.Context) error { return roles.Delete(ctx, role, metav1.DeleteOptions{}) }},
		{"delete binding", func(ctx context.Context) error { return bindings.Delete(ctx, binding, metav1.DeleteOptions{}) }},
		{"delete account", func(ctx context.Context) error { return accounts.Delete(ctx, account, metav1.DeleteOptions{}) }},
		{"delete secret", func(ctx context.Context) error { return secrets.Delete(ctx, secret, metav1.DeleteOptions{}) }},
	}
}

// reservedVersions are the resource versions of the four: they change with every byte of them.
func reservedVersions(t *testing.T, n *node.Node) string {
	t.Helper()
	const output = "jsonpath={.metadata.resourceVersion}"
	return strings.Join([]string{
		run(t, n, "kubectl", "get", "clusterrole", role, "-o", output),
		run(t, n, "kubectl", "get", "clusterrolebinding", binding, "-o", output),
		run(t, n, "kubectl", "-n", "kube-system", "get", "serviceaccount", account, "-o", output),
		run(t, n, "kubectl", "-n", "kube-system", "get", "secret", secret, "-o", output),
	}, " ")
}

// underLoad does something while forbidden writes go on: none may fail, and nothing reserved may change.
func underLoad(t *testing.T, n *node.Node, do func()) *load {
	t.Helper()
	before, recorded := reservedVersions(t, n), recordedDenials(t, n)
	l := startLoad(t, n)
	do()
	l.endWithoutFailure(t)
	l.requireRecorded(t, n, recorded)
	if after := reservedVersions(t, n); after != before {
		t.Errorf("what is reserved was written: resource versions %s, before %s", after, before)
	}
	return l
}

func (l *load) String() string {
	return fmt.Sprintf("%d forbidden writes: %d denied, %d failed, %d not refused", l.denied+l.failed+len(l.wrong), l.denied, l.failed, len(l.wrong))
}

func rolloutStatus(t *testing.T, n *node.Node) {
	t.Helper()
	run(t, n, "kubectl", "-n", namespace, "rollout", "status", "deployment/apigw-guardian", "--timeout=2m")
}

// loseReplica deletes one of the two replicas.
func loseReplica(t *testing.T, n *node.Node) {
	t.Helper()
	l := underLoad(t, n, func() {
		pod := run(t, n, "kubectl", "-n", namespace, "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[0].metadata.name}")
		run(t, n, "kubectl", "-n", namespace, "delete", "pod", pod)
		rolloutStatus(t, n)
	})
	t.Logf("one replica deleted: %s", l)
}

// restartUnderLoad is row R6 of the targets.
func restartUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	restarts := harness.Repetitions(t, 10)
	l := underLoad(t, n, func() {
		for range restarts {
			run(t, n, "kubectl", "-n", namespace, "rollout", "restart", "deployment/apigw-guardian")
			rolloutStatus(t, n)
		}
	})
	t.Logf("R6: %d restarts, %s", restarts, l)
}

// upgradeAndRollBack is, with what comes of an upgrade that fails, row R15 of the targets.
func upgradeAndRollBack(t *testing.T, n *node.Node) {
	t.Helper()
	before := revision(t, n)
	l := underLoad(t, n, func() {
		run(t, n, "helm", upgrade("--wait", "--set", "image.tag="+nextTag, "--set", "logLevel=debug")...)
		requireVersion(t, n, nextVersion)
		// The new replicas do not start: the old ones stay.
		refuse(t, n, "", "helm", upgrade("--wait", "--timeout", "15s", "--set", "image.tag=nosuch")...)
		run(t, n, "helm", "rollback", release, "--namespace", namespace, "--wait", "--timeout", "4m", before)
		requireVersion(t, n, version)
		rolloutStatus(t, n)
	})
	t.Logf("R15: upgrade, failed upgrade and rollback, %s", l)
}

func revision(t *testing.T, n *node.Node) string {
	t.Helper()
	var status struct{ Version json.Number }
	if err := json.Unmarshal([]byte(run(t, n, "helm", "status", release, "--namespace", namespace, "--output", "json")), &status); err != nil {
		t.Fatal(err)
	}
	return status.Version.String()
}

func requireVersion(t *testing.T, n *node.Node, want string) {
	t.Helper()
	says := run(t, n, "kubectl", "-n", namespace, "exec", "deployment/apigw-guardian", "--", "/apigw-guardian", "version")
	if !strings.Contains(says, want) {
		t.Errorf("the guard's version is %q, want %s", says, want)
	}
}

// killInterval is that of row R5.
const killInterval = 5 * time.Second

// killUnderLoad is row R5 of the targets: the replicas are killed in turn. Writes may fail while neither answers, and none
// may go through.
func killUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	kills := harness.Repetitions(t, 10)
	before, recorded := reservedVersions(t, n), recordedDenials(t, n)
	l := startLoad(t, n)
	for i := range kills {
		time.Sleep(killInterval)
		for !killReplica(t, n, i) { // both are about to start again
			time.Sleep(time.Second)
		}
	}
	l.end(t)
	rolloutStatus(t, n)
	l.requireRecorded(t, n, recorded)
	if after := reservedVersions(t, n); after != before {
		t.Errorf("what is reserved was written: resource versions %s, before %s", after, before)
	}
	t.Logf("R5: %d kills, %s", kills, l)
}

// killReplica kills one of the replicas that run, another in each turn, and tells whether any did.
func killReplica(t *testing.T, n *node.Node, turn int) bool {
	t.Helper()
	containers := guardContainers(t, n)
	for i := range containers {
		err := n.KillContainer(t.Context(), containers[(turn+i)%len(containers)])
		if err == nil {
			return true
		}
		if !errors.Is(err, node.ErrNotRunning) {
			t.Fatal(err)
		}
	}
	return false
}

// guardContainers are the ids of the replicas' containers, also of ended ones.
func guardContainers(t *testing.T, n *node.Node) []string {
	t.Helper()
	containers, err := n.Containers(t.Context(), "webhook")
	if err != nil {
		t.Fatal(err)
	}
	return containers
}

// drainUnderLoad drains the only node. The disruption budget keeps one of two ready replicas, which denies.
func drainUnderLoad(t *testing.T, n *node.Node) {
	t.Helper()
	l := underLoad(t, n, func() {
		refuse(t, n, "disruption budget", "kubectl", append(drain, "--timeout=10s")...)
		run(t, n, "kubectl", "uncordon", "--selector=kubernetes.io/os=linux")
		rolloutStatus(t, n)
	})
	t.Logf("the only node drained: %s", l)
}

// drain is the command that the chart's page names.
var drain = []string{"drain", "--selector=kubernetes.io/os=linux", "--ignore-daemonsets", "--delete-emptydir-data"}

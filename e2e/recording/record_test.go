// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// A record has the user, the object, the time, the fields and the reason. The audit log and an Event name it.
func TestARecordDescribesTheDenial(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	from := startOfLog(t)
	write := scenario.Merge(harness.Of(t).World.Role, `{"metadata":{"labels":{"rbac.authorization.k8s.io/aggregate-to-admin":"true"}}}`)
	write.As = scenario.Identity{User: "jane\u202e@example.com", Groups: []string{"system:masters", "team"}}
	before := time.Now().Add(-time.Second)
	deny(t, write)
	awaitStored(t, replicas)
	var name string
	for record := range from.read(t).denials {
		name = record
	}
	record, err := harness.Records(t).Get(t.Context(), name)
	must(t, err)
	spec := record.Spec
	if spec.FirstTime.Time.Before(before) || spec.LastTime != spec.FirstTime || spec.LastRequestUID == "" || len(spec.Counts) != 1 {
		t.Errorf("first %v, last %v, request %q, counts %v", spec.FirstTime, spec.LastTime, spec.LastRequestUID, spec.Counts)
	}
	spec.FirstTime, spec.LastTime, spec.LastRequestUID, spec.Counts, spec.Replica = metav1.MicroTime{}, metav1.MicroTime{}, "", nil, ""
	want := v1alpha1.AuditRecordSpec{
		Outcome: "Denied", Operation: "UPDATE",
		Object:   v1alpha1.ObjectReference{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "apigw-ingress-clusterrole"},
		Resource: "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole",
		Changed:  []string{"metadata.labels[rbac.authorization.k8s.io/aggregate-to-admin]"}, Reason: "ReservedUpdate",
		Message: `ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: metadata.labels[rbac.authorization.k8s.io/aggregate-to-admin]).`,
		User:    v1alpha1.User{Name: "jane\ufffd@example.com", Groups: []string{"system:masters", "team", "system:authenticated"}},
		Count:   1, Source: v1alpha1.SourceGuard,
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	out, says, err := harness.Of(t).Cluster.Kubectl(t.Context(), "get", "denials", name)
	if err != nil || !strings.Contains(out, "Denied") || !strings.Contains(out, "ReservedUpdate") {
		t.Errorf("kubectl get denials: %v\n%s%s", err, out, says)
	}
	out, says, err = harness.Of(t).Cluster.Kubectl(t.Context(), "get", "auditrecords", "--field-selector", "spec.user.name=nobody")
	if err != nil || strings.Contains(out, "Denied") {
		t.Errorf("kubectl get auditrecords of a user without denials: %v\n%s%s", err, out, says)
	}
	requireEvent(t, name)
	requireDescribed(t)
}

// requireDescribed fails the test unless kubectl describe shows who was denied, although one object and reason are common to all.
func requireDescribed(t *testing.T) {
	t.Helper()
	users := []string{"alice", "bob", "carol"}
	for _, user := range users {
		write := scenario.Merge(harness.Of(t).World.Account, `{"metadata":{"labels":{"a":"b"}}}`)
		write.As = scenario.Identity{User: user, Groups: []string{"system:masters"}}
		deny(t, write)
	}
	harness.Eventually(t, "kubectl describe shows three denials", func() (bool, any) {
		out, says, err := harness.Of(t).Cluster.Kubectl(t.Context(), "describe", "serviceaccount", "apigw-ingress", "-n", "kube-system")
		isMissing := func(user string) bool { return !strings.Contains(out, `UPDATE by "`+user+`"`) }
		return err == nil && !slices.ContainsFunc(users, isMissing), out + says
	})
}

// requireEvent fails the test unless an Event of the denied object names the record.
func requireEvent(t *testing.T, record string) {
	t.Helper()
	harness.Eventually(t, "an Event names the record", func() (bool, any) {
		events, err := harness.Clients(t).CoreV1().Events(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=ClusterRole,involvedObject.name=apigw-ingress-clusterrole",
		})
		if err != nil {
			return false, err
		}
		for i := range events.Items {
			event := &events.Items[i]
			if event.Type == corev1.EventTypeWarning && event.Reason == "ReservedUpdate" && strings.Contains(event.Message, record) {
				return true, nil
			}
		}
		return false, events.Items
	})
}

func TestADryRunLeavesNoRecord(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 1)
	before := counts(t)
	deny(t, scenario.Delete(harness.Of(t).World.Binding).DryRun())
	if diff := cmp.Diff(before, counts(t)); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestARestorationIsRecorded(t *testing.T) {
	harness.Take(t)
	world := harness.Of(t).World
	answer, err := world.Unguarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"wrong":"yes"}}}`))
	if err != nil || answer.Code != http.StatusOK {
		t.Fatalf("prepare: %d %v", answer.Code, err)
	}
	startReplicas(t, 1)
	harness.Eventually(t, "the label is gone by an allowed write", func() (bool, any) {
		answer, err := world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"wrong":null}}}`))
		return err == nil && answer.Code == http.StatusOK, answer.Code
	})
	records, err := harness.Records(t).List(t.Context(), audit.Filter{Outcome: "Restored"})
	must(t, err)
	if len(records) != 1 || records[0].Spec.Count != 1 || records[0].Spec.Reason != "Restoration" {
		t.Errorf("records of restorations: %+v", records)
	}
}

// canary is in Secret data, tokens and annotations of writes. No output of the guard may contain it.
const canary = "canary-7d3f1b"

func TestNoOutputContainsAValueOfASecret(t *testing.T) {
	harness.Take(t)
	world := harness.Of(t).World
	spool := filepath.Join(t.TempDir(), "spool")
	replicas := startReplicas(t, 1, "--log-level=debug", "--audit-mode=batch", "--spool-dir="+spool)
	value := base64.StdEncoding.EncodeToString([]byte(canary))
	deny(t, scenario.Merge(world.Token, fmt.Sprintf(`{"data":{"token":%q,"extra":%q}}`, value, value)))
	deny(t, scenario.Merge(world.Token, fmt.Sprintf(`{"metadata":{"annotations":{"note":%q}}}`, canary)))
	deny(t, scenario.Merge(world.Token, fmt.Sprintf(`{"stringData":{"token":%q}}`, canary)))
	token, _, err := world.Cluster.Kubectl(t.Context(), "-n", "kube-system", "get", "secret", world.Token.Name, "-o", "jsonpath={.data.token}")
	must(t, err)
	secret, err := base64.StdEncoding.DecodeString(token)
	must(t, err)
	spooled, err := os.ReadFile(filepath.Join(spool, "audit.jsonl"))
	must(t, err)
	if !bytes.Contains(spooled, []byte("apigw-ingress-token")) {
		t.Errorf("the spool does not contain the denials: %s", spooled)
	}
	awaitStored(t, replicas)
	places := map[string]string{"spool": string(spooled), "metrics": bodyOf(replicas[0].guard.MetricsURL() + "/metrics")}
	log, err := replicas[0].guard.Log()
	must(t, err)
	places["log"] = string(log)
	for _, kind := range []string{"denials", "events"} {
		places[kind], _, err = world.Cluster.Kubectl(t.Context(), "get", kind, "--all-namespaces", "-o", "json")
		must(t, err)
	}
	for _, args := range [][]string{{"list", "-o", "json"}, {"list", "-o", "wide"}, {"summary"}, {"export", "--format", "ocsf"}} {
		output, err := world.Cluster.Command(t.Context(), harness.Of(t).Program, append([]string{"audit"}, args...)...).CombinedOutput()
		must(t, err)
		places["audit "+args[0]] = string(output)
	}
	places["page"] = pageOf(t)
	if !strings.Contains(places["page"], "apigw-ingress-token") {
		t.Errorf("the page does not contain the denials: %s", places["page"])
	}
	for place, content := range places {
		for _, hidden := range []string{canary, value, token, string(secret)} {
			if strings.Contains(content, hidden) {
				t.Errorf("%s shows a value of a Secret", place)
			}
		}
	}
}

// pageOf returns the response of audit web with all records.
func pageOf(t *testing.T) string {
	t.Helper()
	command := harness.Of(t).Cluster.Command(t.Context(), harness.Of(t).Program, "audit", "web")
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it was killed
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if address := strings.TrimSpace(lines.Text()); strings.HasPrefix(address, "http://") {
			return bodyOf(address + "api/view")
		}
	}
	t.Fatal("audit web printed no address")
	return ""
}

// The leader deletes records that are too old. If there are too many, it deletes those of the user with the most records.
func TestRetention(t *testing.T) {
	harness.Take(t)
	s := harness.Records(t)
	limit := int64(len(counts(t))) + 100
	now := time.Now()
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 100 {
				n := worker*100 + i
				event := audit.Event{
					Time: now.Add(-time.Duration(n+1) * 24 * time.Hour), Outcome: "Denied", Operation: "DELETE",
					Object: v1alpha1.ParseObjectReference("configmaps/retention/x"), Reason: "ReservedDelete", User: v1alpha1.User{Name: "noisy"},
				}
				if _, err := s.Merge(t.Context(), event.Record("test", 1), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	remaining := func() int {
		records, err := s.List(t.Context(), audit.Filter{Resource: "configmaps/retention/x"})
		must(t, err)
		return len(records)
	}
	deleted, err := s.CleanUp(t.Context(), store.Retention{Age: (300*24 + 12) * time.Hour, Max: 100_000}, now)
	if err != nil || deleted != 500 || remaining() != 300 {
		t.Errorf("by age: %d deleted, %d remain, want 500 and 300 (%v)", deleted, remaining(), err)
	}
	deleted, err = s.CleanUp(t.Context(), store.Retention{Age: 10_000 * 24 * time.Hour, Max: limit}, now)
	if err != nil || deleted != 200 || remaining() != 100 {
		t.Errorf("by number: %d deleted, %d remain, want 200 and 100 (%v)", deleted, remaining(), err)
	}
	startReplicas(t, 1, fmt.Sprintf("--audit-max-records=%d", limit-50))
	harness.Eventually(t, "the leader has deleted half of the rest", func() (bool, any) {
		count := remaining()
		return count <= 60, count
	})
}

func TestWrongUsage(t *testing.T) {
	harness.Take(t)
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"an unknown mode":         {[]string{"--audit-mode=none"}, 2, "blocking, durable or batch"},
		"batch without a spool":   {[]string{"--audit-mode=batch"}, 2, "--spool-dir"},
		"no retention":            {[]string{"--audit-retention=0s"}, 2, "above zero"},
		"no records":              {[]string{"--audit-max-records=0"}, 2, "above zero"},
		"a spool that is no path": {[]string{"--spool-dir=/dev/null/spool"}, 1, "spool"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"webhook", "--url=https://127.0.0.1:1", "--listen=127.0.0.1:0"}, test.args...)
			command := harness.Of(t).Cluster.Command(t.Context(), harness.Of(t).Program, args...)
			output, err := command.CombinedOutput()
			if command.ProcessState.ExitCode() != test.code || !strings.Contains(string(output), test.says) {
				t.Errorf("exit code %d (%v), want %d and %q:\n%s", command.ProcessState.ExitCode(), err, test.code, test.says, output)
			}
		})
	}
}

func deny(t *testing.T, write scenario.Write) {
	t.Helper()
	answer, err := harness.Of(t).World.Guarded.Do(t.Context(), write)
	if err != nil || answer.Code != http.StatusForbidden {
		t.Fatalf("got %d %s %v, want a denial", answer.Code, answer.Body, err)
	}
}

func bodyOf(url string) string {
	_, body := harness.Get(url)
	return body
}

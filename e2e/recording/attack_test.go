// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// forged is the format of a review that no API server has sent.
const forged = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"forged-%[1]d","operation":"DELETE",
"kind":{"group":"rbac.authorization.k8s.io","version":"v1","kind":"ClusterRole"},
"resource":{"group":"rbac.authorization.k8s.io","version":"v1","resource":"clusterroles"},
"name":"apigw-ingress-clusterrole","userInfo":{"username":%[2]q,"groups":[%[3]q]},
"oldObject":{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"apigw-ingress-clusterrole"}}}}`

// postForged posts reviews to a guard without a credential.
func postForged(t *testing.T, r *replica, count int64, body func(n int64) string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 8, // without the CA
	}}
	defer client.CloseIdleConnections()
	var sent atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := sent.Add(1); n <= count; n = sent.Add(1) {
				response, err := client.Post(r.guard.URL()+webhook.Path, "application/json", bytes.NewBufferString(body(n)))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	group.Wait()
}

// recordsOf returns the records with this user.
func recordsOf(t *testing.T, user string) []v1alpha1.AuditRecord {
	t.Helper()
	records, err := harness.Records(t).List(t.Context(), audit.Filter{User: `"` + user + `"`})
	must(t, err)
	return records
}

func denyAs(t *testing.T, user string) {
	t.Helper()
	write := scenario.Delete(harness.Of(t).World.Role)
	write.As = scenario.Identity{User: user, Groups: []string{"system:masters"}}
	deny(t, write)
}

func TestForgedReviewsHideNoUser(t *testing.T) {
	harness.Take(t)
	for name, test := range map[string]struct {
		count int64
		body  func(n int64) string
	}{
		"many forged users":             {harness.Full[int64](20_000, 1_100), func(n int64) string { return fmt.Sprintf(forged, n, fmt.Sprint("a", n), "g") }},
		"many reviews of a forged user": {harness.Full[int64](5_000, 1_200), func(n int64) string { return fmt.Sprintf(forged, n, "forged", fmt.Sprint("g", n)) }},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := startReplicas(t, 1)
			postForged(t, replicas[0], test.count, test.body)
			user := "mallory of " + name
			awaitRoom(t)
			for range 3 {
				denyAs(t, user)
			}
			awaitStored(t, replicas)
			records := recordsOf(t, user)
			if len(records) != 1 || records[0].Spec.Count != 3 || records[0].Spec.Reason != "ReservedDelete" {
				t.Errorf("mallory's records: %+v", records)
			}
			resident, err := replicas[0].guard.Resident()
			report.Line(t, "%s: the next denials are recorded in their user's name; the guard holds %d MB (%v)", name, resident>>20, err)
		})
	}
}

// editable returns a client that reads and writes records without the guard.
func editable(t *testing.T) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	must(t, err)
	return client.Resource(v1alpha1.GroupVersion().WithResource("auditrecords"))
}

// awaitRoom waits for the next window if this one ends soon: a denial in the next one is counted in another record.
func awaitRoom(t *testing.T) {
	t.Helper()
	end := time.Now().Truncate(audit.Window).Add(audit.Window)
	if left := time.Until(end); left < 30*time.Second {
		t.Logf("waiting %s for the next window", left)
		time.Sleep(left)
	}
}

func TestAChangedRecordHidesNoDenial(t *testing.T) {
	harness.Take(t)
	bobs := func(record *v1alpha1.AuditRecord) { record.Spec.User.Name = "bob" }
	full := func(record *v1alpha1.AuditRecord) {
		record.Spec.Count, record.Spec.Counts[0].Count = 1<<63-1, 1<<63-1
	}
	for name, test := range map[string]struct {
		edit func(*v1alpha1.AuditRecord)
		// prepared says that the record exists before the guard starts.
		prepared bool
	}{
		"created before, with user bob":  {bobs, true},
		"edited to user bob":             {bobs, false},
		"with a count at the maximum":    {full, false},
		"created before with that count": {full, true},
	} {
		t.Run(name, func(t *testing.T) {
			awaitRoom(t)
			replicas := startReplicas(t, 1)
			user := "mallory, " + name
			denyAs(t, user)
			awaitStored(t, replicas)
			first := recordsOf(t, user)[0]
			if test.prepared {
				replicas[0].stop() // releases its lease, so that the next guard need not wait for it
				must(t, editable(t).Delete(t.Context(), first.Name, metav1.DeleteOptions{}))
			}
			test.edit(&first)
			if test.prepared {
				first.ResourceVersion, first.UID = "", ""
			}
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&first)
			must(t, err)
			forged := &unstructured.Unstructured{Object: object}
			if test.prepared {
				_, err = editable(t).Create(t.Context(), forged, metav1.CreateOptions{})
				must(t, err)
				replicas[0].start()
			} else {
				_, err = editable(t).Update(t.Context(), forged, metav1.UpdateOptions{})
				must(t, err)
			}
			harness.Eventually(t, "a denial", func() (bool, any) {
				write := scenario.Delete(harness.Of(t).World.Role)
				write.As = scenario.Identity{User: user, Groups: []string{"system:masters"}}
				answer, err := harness.Of(t).World.Guarded.Do(t.Context(), write)
				return err == nil && answer.Code == http.StatusForbidden, fmt.Sprintf("%d %s %v", answer.Code, answer.Body, err)
			})
			awaitStored(t, replicas)
			found := int64(0)
			for _, record := range recordsOf(t, user) {
				if record.Name != first.Name {
					found += record.Spec.Count
				}
			}
			altered, err := replicas[0].guard.Metric(t.Context(), "apigw_guardian_audit_altered_total")
			if err != nil || found == 0 || altered == 0 {
				t.Errorf("%d denials in a second record, %v altered (%v)", found, altered, err)
			}
		})
	}
}

// status returns the field recorded in the output of the command status, and its exit code.
func status(t *testing.T) (recorded *bool, code int) {
	t.Helper()
	ran := harness.Run(t, "status", "-o", "json")
	var answer struct{ Recorded *bool }
	ran.Into(t, &answer)
	return answer.Recorded, ran.Code
}

func TestStatusShowsTheLossOfTheRecordStore(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	if recorded, code := status(t); recorded == nil || !*recorded || code != 0 {
		t.Errorf("before: recorded %v, exit code %d", recorded, code)
	}
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	must(t, err)
	definitions := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	name := "auditrecords." + v1alpha1.Group
	must(t, definitions.Delete(t.Context(), name, metav1.DeleteOptions{}))
	t.Cleanup(func() { must(t, harness.Of(t).Cluster.InstallCRDs(context.WithoutCancel(t.Context()))) })
	harness.Eventually(t, "the definition is gone", func() (bool, any) {
		live, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), live
	})
	denyAs(t, "mallory without a store")
	harness.Eventually(t, "status reports that denials are not recorded", func() (bool, any) {
		recorded, code := status(t)
		return recorded != nil && !*recorded && code == 3, fmt.Sprintf("recorded %v, exit code %d", recorded, code)
	})
	if pending, err := replicas[0].guard.Metric(t.Context(), "apigw_guardian_audit_pending_records"); err != nil || pending == 0 {
		t.Errorf("%v records pending (%v)", pending, err)
	}
	must(t, harness.Of(t).Cluster.InstallCRDs(t.Context()))
	awaitStored(t, replicas)
	if records := recordsOf(t, "mallory without a store"); len(records) != 1 || records[0].Spec.Count != 1 {
		t.Errorf("the denial meanwhile: %+v", records)
	}
}

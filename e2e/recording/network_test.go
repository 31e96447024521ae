// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// The guards reach the API server over a bad network, which its reviews do not cross.
func TestNoDenialIsLostOverABadNetwork(t *testing.T) {
	harness.Take(t)
	const denials = 200
	cases := map[string]struct {
		replicas int
		worsen   func(t *testing.T, links []*testbed.Link, flood *flood)
	}{
		"packets are delayed": {1, func(_ *testing.T, links []*testbed.Link, flood *flood) {
			links[0].Delay(300 * time.Millisecond)
			flood.awaitMore(denials)
			links[0].Delay(0)
		}},
		"connections are dropped": {1, func(t *testing.T, links []*testbed.Link, flood *flood) {
			t.Helper()
			before := flood.denials.Load()
			harness.Eventually(t, "writes are denied", func() (bool, any) {
				links[0].Drop()
				return flood.denials.Load() > before+denials, flood.denials.Load()
			})
		}},
		"the leader is cut off": {2, func(t *testing.T, links []*testbed.Link, flood *flood) {
			t.Helper()
			leader := holder(t)
			links[0].Cut() // the first replica leads: it was ready before the second started
			harness.Eventually(t, "another replica leads", func() (bool, any) { now := holder(t); return now != leader, now })
			flood.awaitMore(denials)
			links[0].Mend()
		}},
	}
	for _, name := range harness.Full([]string{"packets are delayed", "connections are dropped", "the leader is cut off"}, []string{"connections are dropped"}) {
		t.Run(name, func(t *testing.T) {
			var links []*testbed.Link
			replicas := startReplicasWith(t, cases[name].replicas, func() []string {
				link, config, err := testbed.StartLink(harness.Of(t).Cluster.UnguardedConfig())
				must(t, err)
				t.Cleanup(link.Stop)
				links = append(links, link)
				path := filepath.Join(t.TempDir(), "kubeconfig")
				must(t, testbed.WriteKubeconfig(path, config))
				return []string{"--kubeconfig=" + path}
			})
			requireOutage(t, replicas, 0, func(flood *flood) { cases[name].worsen(t, links, flood) })
		})
	}
}

// holder is who leads.
func holder(t *testing.T) string {
	t.Helper()
	lease, err := harness.Clients(t).CoordinationV1().Leases(guardian.Name).
		Get(t.Context(), guardian.Name, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil {
		return fmt.Sprintf("nobody: %v", err)
	}
	return *lease.Spec.HolderIdentity
}

// A client that deletes the CRD deletes all records. No decision waits for them, and those in the memory of the guards come back with the
// CRD.
func TestTheRecordsOfTheMemoryComeBackWithTheirCRD(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 2)
	from := startOfLog(t)
	flood := startFlood(t)
	flood.awaitMore(outageClients)
	definitions := apiextensionsclient.NewForConfigOrDie(harness.Of(t).Cluster.AdminConfig()).ApiextensionsV1().CustomResourceDefinitions()
	const name = "auditrecords.guardian.apigw.io"
	must(t, definitions.Delete(t.Context(), name, metav1.DeleteOptions{}))
	harness.Eventually(t, "the CRD is gone", func() (bool, any) {
		_, err := definitions.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	flood.awaitMore(100)
	must(t, harness.Of(t).Cluster.InstallCRDs(t.Context()))
	flood.awaitMore(outageClients)
	seen := flood.end()
	awaitStored(t, replicas)
	want, stored := from.read(t), int64(0)
	for _, count := range counts(t) {
		stored += count
	}
	if stored < want.total() || seen.Failed > 0 {
		t.Errorf("%d denials are recorded, and %d calls failed (%s): want %d or more, and none", stored, seen.Failed, seen.Failure, want.total())
	}
	report.Line(t, "the CRD deleted and installed again: %d of %d denials recorded; %d calls failed", stored, want.total(), seen.Failed)
}

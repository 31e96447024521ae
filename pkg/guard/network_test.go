// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// The answer is a note for status and a metric. Without a file of credentials, the answer is why there is none.
func TestTheLeaderNotesTheAnswerOfTencentCloud(t *testing.T) {
	t.Parallel()
	g, err := newTestGuard(t, func(o *Options) {
		o.Network = Network{Client: tke.Client{Credentials: t.TempDir(), Region: "ap-guangzhou", Cluster: "cls-x"}, Interval: time.Hour}
	})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	g.client, g.ledger.Cluster.Client = client, client
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.watchNetwork(ctx)
	}()
	var state drift.State
	for state.Network == nil {
		if state, err = drift.ReadState(ctx, client, "ns"); err != nil {
			t.Fatal(err)
		}
	}
	if state.Network.Reason != tke.NoCredentials || !state.Network.IsCurrent(time.Now()) || state.Network.IsCurrent(time.Now().Add(3*time.Hour)) {
		t.Errorf("noted: %+v", state.Network)
	}
	if got := testutil.ToFloat64(g.network.reasons.WithLabelValues(string(tke.NoCredentials))); got != 1 {
		t.Errorf("metric: got %v, want 1", got)
	}
	cancel()
	<-ended
	if got := testutil.CollectAndCount(g.network.reasons); got != 0 {
		t.Errorf("%d series of a replica that does not lead", got)
	}
}

// Only a change is told, so that one Event follows a loss, and not one every ten minutes.
func TestAChangeOfTheNetworkIsToldOnce(t *testing.T) {
	t.Parallel()
	g, err := newTestGuard(t, func(o *Options) { o.Network = Network{Client: tke.Client{Credentials: "x"}, Interval: time.Hour} })
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []tke.Reason{tke.Enabled, tke.Disabled, tke.Disabled, tke.Throttled} {
		g.tellNetwork(tke.Answer{Reason: reason})
		if got := testutil.CollectAndCount(g.network.reasons); got != 1 || g.network.said != reason {
			t.Errorf("%s: %d series, said %s", reason, got, g.network.said)
		}
	}
}

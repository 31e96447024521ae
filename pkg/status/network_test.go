// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// What Tencent Cloud has answered to the leader counts for more than the signs in the cluster, while the leader asks.
func TestStatusShowsTheAnswerOfTencentCloud(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reason tke.Reason
		age    time.Duration
		want   string
	}{
		"enabled":                {tke.Enabled, 0, "Yes"},
		"disabled":               {tke.Disabled, time.Minute, "No"},
		"throttled":              {tke.Throttled, time.Minute, "Unknown"},
		"a leader that has gone": {tke.Enabled, time.Hour, "as before"},
		"an unknown reason":      {"Other", 0, "Unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			note, err := json.Marshal(drift.Network{
				Answer: tke.Answer{Reason: test.reason, Message: "m", Remedy: "r"}, At: metav1.NewTime(time.Now().Add(-test.age)),
				Interval: metav1.Duration{Duration: 10 * time.Minute},
			})
			if err != nil {
				t.Fatal(err)
			}
			client := fake.NewClientset(&corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: drift.StateName}, Data: map[string]string{"network": string(note)},
			})
			report := Report{PrivateNetwork: "as before"}
			report.addNotes(t.Context(), live.Cluster{Client: client, Namespace: "ns"})
			if report.PrivateNetwork != test.want {
				t.Errorf("got %s (%s), want %s", report.PrivateNetwork, report.PrivateNetworkMessage, test.want)
			}
		})
	}
}

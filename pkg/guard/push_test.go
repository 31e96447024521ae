// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collectorv1 "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/otlp"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
)

func newPusher(t *testing.T, endpoint string, state *corev1.ConfigMap) *pusher {
	t.Helper()
	client := fake.NewClientset()
	if state != nil {
		client = fake.NewClientset(state)
	}
	g := &Guard{client: client, options: Options{
		Namespace: "guard", Push: otlp.Options{Endpoint: endpoint}, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	}}
	g.addPusher()
	if endpoint != "" {
		exporter, err := otlp.New(g.options.Push)
		if err != nil {
			t.Fatal(err)
		}
		g.pusher.exporter = exporter
	}
	return g.pusher
}

// One record that a receiver does not take must not hold up the others for ever.
func TestARefusedRecordHoldsUpNoOther(t *testing.T) {
	var taken []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reader, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		content, _ := io.ReadAll(reader)
		if strings.Contains(string(content), "poison") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		message := &collectorv1.ExportLogsServiceRequest{}
		if err := proto.Unmarshal(content, message); err != nil {
			t.Error(err)
			return
		}
		for _, log := range message.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords() {
			taken = append(taken, log.GetAttributes()[0].GetValue().GetStringValue())
		}
	}))
	defer server.Close()
	p := newPusher(t, server.URL, nil)
	var records []v1alpha1.AuditRecord
	for i := range 7 {
		record := v1alpha1.AuditRecord{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i)}}
		if i == 4 {
			record.Spec.Message = "poison"
		}
		records = append(records, record)
	}
	if err := p.Receive(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	slices.Sort(taken)
	if diff := cmp.Diff([]string{"0.0", "1.0", "2.0", "3.0", "5.0", "6.0"}, taken); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for result, want := range map[string]float64{pushAccepted: 6, pushRejected: 1, pushFailed: 0} {
		if got := testutil.ToFloat64(p.records.WithLabelValues(result)); got != want {
			t.Errorf("%v records are %s, want %v", got, result, want)
		}
	}
}

func TestTheNextLeaderPushesFromWhereThisOneIs(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	state := func(pushed string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "guard", Name: drift.StateName}, Data: map[string]string{pushedKey: pushed, "other": "x"},
		}
	}
	for name, test := range map[string]struct {
		state *corev1.ConfigMap
		want  time.Time
	}{
		"nothing was pushed":      {want: time.Time{}},
		"a note of another form":  {state: state("yesterday"), want: time.Time{}},
		"a note":                  {state: state(now.UTC().Format(time.RFC3339)), want: now.Add(-pushOverlap)},
		"a note about the future": {state: state(now.Add(time.Hour).UTC().Format(time.RFC3339)), want: time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPusher(t, "http://127.0.0.1:1", test.state)
			since, err := p.load(t.Context())
			if err != nil || !since.Equal(test.want) {
				t.Fatalf("got %v, %v, want %v", since, err, test.want)
			}
			p.Reached(now)
			maps, err := p.guard.client.CoreV1().ConfigMaps("guard").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range maps.Items {
				data := maps.Items[i].Data
				if data[pushedKey] != now.UTC().Format(time.RFC3339) || data["other"] != "x" {
					t.Errorf("the ConfigMap has %v", data)
				}
			}
		})
	}
}

func TestWithoutAReceiverNothingIsPushed(t *testing.T) {
	if p := newPusher(t, "", nil); p != nil {
		t.Error("there is a pusher")
	}
}

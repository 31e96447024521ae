// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
)

// collector is a receiver of OTLP logs. It may be away, or hang: then it reads a request and does not answer it.
type collector struct {
	t       *testing.T
	address string
	server  *http.Server
	hangs   chan struct{}

	mu   sync.Mutex
	logs map[string]int
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, address: "127.0.0.1:0", logs: map[string]int{}}
	c.start()
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *collector) start() {
	listener, err := net.Listen("tcp", c.address)
	must(c.t, err)
	c.address = listener.Addr().String()
	c.server = &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = c.server.Serve(listener) }()
}

func (c *collector) stop() { _ = c.server.Close() }

func (c *collector) serve(w http.ResponseWriter, r *http.Request) {
	message := &collectorv1.ExportLogsServiceRequest{}
	reader, err := gzip.NewReader(r.Body)
	if err == nil {
		var content []byte
		content, err = io.ReadAll(reader)
		err = errors.Join(err, proto.Unmarshal(content, message))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hangs != nil {
		hangs := c.hangs
		c.mu.Unlock()
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
		c.mu.Lock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, resource := range message.GetResourceLogs() {
		for _, scope := range resource.GetScopeLogs() {
			for _, record := range scope.GetLogRecords() {
				c.logs[record.GetAttributes()[0].GetValue().GetStringValue()]++
			}
		}
	}
}

func (c *collector) hang(hangs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hangs != nil {
		close(c.hangs)
	}
	if c.hangs = nil; hangs {
		c.hangs = make(chan struct{})
	}
}

// missing returns the ids of the records in the cluster, as they are now, that the collector does not have, and how many there are.
func (c *collector) missing() (ids []string, count int) {
	records, err := harness.Records(c.t).List(c.t.Context(), audit.Filter{})
	must(c.t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range records {
		if id := export.EventID(&records[i]); c.logs[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids, len(records)
}

func (c *collector) sent() (total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range maps.Values(c.logs) {
		total += n
	}
	return total
}

// The API server keeps the records for the receiver: neither an outage of it, nor the death of the leader meanwhile, loses one. A receiver
// that hangs delays no answer: the flood gets as many denials as it asks for.
func TestAReceiverThatIsAwayMissesNoRecord(t *testing.T) {
	harness.Take(t)
	receiver := startCollector(t)
	replicas := startReplicas(t, 1, "--otlp-endpoint=http://"+receiver.address, "--otlp-cluster-name=testbed")
	from, before := startOfLog(t), counts(t)
	flood := startFlood(t)
	const each = 100
	flood.awaitMore(each)
	receiver.hang(true)
	flood.awaitMore(each)
	receiver.stop()
	replicas[0].kill()
	replicas[0].start()
	away := harness.Full(time.Minute, 8*time.Second)
	time.Sleep(away)
	flood.awaitMore(each)
	receiver.hang(false)
	receiver.start()
	flood.awaitMore(each)
	seen := flood.end()
	awaitStored(t, replicas)
	requireCounted(t, from.read(t), before, counts(t))
	var records int
	harness.Eventually(t, "the receiver has every record", func() (bool, any) {
		var ids []string
		ids, records = receiver.missing()
		return len(ids) == 0 && records > 0, ids[:min(len(ids), 5)]
	})
	report.Line(t, "a receiver away for %s: %d denials in %d records, all received, in %d logs", away, seen.Denied, records, receiver.sent())
}

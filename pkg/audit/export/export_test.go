// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew; read the difference before you commit it")

func load(t *testing.T) []v1alpha1.AuditRecord {
	t.Helper()
	data, err := os.ReadFile("testdata/records.yaml")
	if err != nil {
		t.Fatal(err)
	}
	list := &v1alpha1.AuditRecordList{}
	if err := yaml.UnmarshalStrict(data, list); err != nil {
		t.Fatal(err)
	}
	var outcomes []v1alpha1.Outcome
	for i := range list.Items {
		audit.Clean(&list.Items[i])
		outcomes = append(outcomes, list.Items[i].Spec.Outcome)
	}
	for _, outcome := range v1alpha1.Outcomes() {
		if !slices.Contains(outcomes, outcome) {
			t.Fatalf("no record has the outcome %s", outcome)
		}
	}
	return list.Items
}

func write(t *testing.T, format Format) string {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, format, Origin{Version: "v1.2.3", Cluster: "prod 1"}, load(t)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWriteIsAsItsGoldenFile(t *testing.T) {
	t.Parallel()
	for _, format := range Formats() {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			golden := "testdata/records." + string(format) + ".golden"
			got := write(t, format)
			if *updateGolden {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNoGoldenFileIsWithoutItsFormat(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name, isGolden := strings.CutSuffix(entry.Name(), ".golden")
		if isGolden && !slices.Contains(Formats(), Format(strings.TrimPrefix(name, "records."))) {
			t.Errorf("%s belongs to no format", entry.Name())
		}
	}
}

func TestWriteKnowsNoOtherFormat(t *testing.T) {
	t.Parallel()
	if err := Write(&bytes.Buffer{}, "xml", Origin{}, load(t)); err == nil {
		t.Errorf("got %v", err)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestWriteReturnsTheErrorOfTheWriter(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for _, format := range Formats() {
		if err := Write(broken{full}, format, Origin{}, load(t)); !errors.Is(err, full) {
			t.Errorf("%s: got %v", format, err)
		}
	}
}

func TestJSONLinesAreTheRecords(t *testing.T) {
	t.Parallel()
	var got []v1alpha1.AuditRecord
	for line := range strings.Lines(write(t, JSONL)) {
		var record v1alpha1.AuditRecord
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		got = append(got, record)
	}
	if diff := cmp.Diff(load(t), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// No cell may be a formula, in whatever field of a record it stood.
func TestNoCellOfTheCSVIsAFormula(t *testing.T) {
	t.Parallel()
	for _, start := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1"} {
		records := load(t)[:1]
		spec := &records[0].Spec
		spec.Operation, spec.Resource, spec.Reason, spec.Message = admissionv1.Operation(start), start, start, start
		spec.User = v1alpha1.User{Name: start, UID: start, Groups: []string{start}}
		spec.Changed, spec.LastRequestUID, spec.Replica = []string{start}, start, start
		var out bytes.Buffer
		if err := Write(&out, CSV, Origin{}, records); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, cell := range rows[1] {
			if strings.ContainsAny(string([]rune(cell + " ")[:1]), "=+-@\t\r\n＝＋－＠") {
				t.Errorf("%s is %q", rows[0][i], cell)
			}
		}
	}
}

// The attributes that the specification requires, of the types that it names.
func TestCloudEventsHaveWhatTheSpecificationRequires(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	for line := range strings.Lines(write(t, cloudEvents)) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		for name, value := range event {
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(name) > 20 {
				t.Errorf("%q is no name of an attribute", name)
			}
			if text, isText := value.(string); isText && text == "" {
				t.Errorf("%s is empty", name)
			}
		}
		if event["specversion"] != "1.0" || event["datacontenttype"] != "application/json" {
			t.Errorf("got %v", event)
		}
		if _, err := url.Parse(event["source"].(string)); err != nil {
			t.Error(err)
		}
		if _, err := time.Parse(time.RFC3339, event["time"].(string)); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(event["type"].(string), "io.apigw.") || event["data"] == nil {
			t.Errorf("got %v", event)
		}
		id := event["id"].(string)
		if id == "" || ids[id] {
			t.Errorf("the id %q is empty or not unique", id)
		}
		ids[id] = true
	}
}

func TestAnEventIsTheSameUntilItsRecordCountsMore(t *testing.T) {
	t.Parallel()
	records := load(t)
	first, again := newCloudEvent(&records[0], Origin{})["id"], newCloudEvent(records[0].DeepCopy(), Origin{})["id"]
	records[0].Spec.Count++
	if more := newCloudEvent(&records[0], Origin{})["id"]; first != again || more == first {
		t.Errorf("first %s, again %s, with one more write %s", first, again, more)
	}
}

// What https://schema.ocsf.io/1.8.0/classes/api_activity requires, and the values that its lists have.
func TestOCSFEventsHaveWhatTheSchemaRequires(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(write(t, ocsf)) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{
			"activity_id", "category_uid", "class_uid", "severity_id", "time", "type_uid", "metadata.version", "metadata.product.name",
			"metadata.product.vendor_name", "actor.user.name", "api.operation", "api.service.name", "src_endpoint.name",
			"status_id", "action_id", "disposition_id", "metadata.profiles", "metadata.uid",
		} {
			if value := at(event, path); value == nil || value == "" {
				t.Errorf("%s is %v in %s", path, value, line)
			}
		}
		if event["class_uid"] != 6003.0 || event["category_uid"] != 6.0 || event["type_uid"] != 600300+event["activity_id"].(float64) {
			t.Errorf("class %v, category %v, type %v", event["class_uid"], event["category_uid"], event["type_uid"])
		}
		for name, values := range map[string][]float64{
			"activity_id": {0, 1, 3, 4}, "severity_id": {1, 2, 3, 4, 5, 6}, "status_id": {1, 2}, "action_id": {1, 2},
			"disposition_id": {1, 2, 8, 15, 16},
		} {
			if !slices.Contains(values, event[name].(float64)) {
				t.Errorf("%s is %v", name, event[name])
			}
		}
		at := time.UnixMilli(int64(event["time"].(float64))).UTC().Format(time.DateOnly)
		if at != "2026-11-25" || event["start_time"].(float64) > event["end_time"].(float64) || event["count"].(float64) < 1 {
			t.Errorf("time %s, from %v to %v, count %v", at, event["start_time"], event["end_time"], event["count"])
		}
		if event["is_alert"] != (event["severity_id"].(float64) >= 4) {
			t.Errorf("an alert: %v, at severity %v", event["is_alert"], event["severity_id"])
		}
	}
}

func at(value any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		fields, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = fields[name]
	}
	return value
}

func TestExportsNameTheCluster(t *testing.T) {
	t.Parallel()
	record := &load(t)[0]
	prod, test := Origin{Cluster: "prod 1"}, Origin{Cluster: "test"}
	if got := newCloudEvent(record, prod)["source"]; got != "/clusters/prod%201/apis/guardian.apigw.io/v1alpha1/auditrecords" {
		t.Errorf("CloudEvents: got %q", got)
	}
	for _, format := range Formats() {
		var a, b bytes.Buffer
		if err := errors.Join(Write(&a, format, prod, load(t)), Write(&b, format, test, load(t))); err != nil {
			t.Fatal(err)
		}
		if a.String() == b.String() || !strings.Contains(strings.ReplaceAll(a.String(), "%20", " "), "prod 1") {
			t.Errorf("%s does not tell the clusters apart", format)
		}
	}
}

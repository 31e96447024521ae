// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"encoding/csv"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func TestListIsEmptyWithoutRecords(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	if r := harness.Run(t, "audit", "list").Require(t, 0, "No request is recorded."); r.Stdout != "" {
		t.Errorf("got %q", r.Stdout)
	}
	harness.Run(t, "audit", "list", "--by-user", "alice").Require(t, 0, "filter")
	harness.Run(t, "audit", "list", "-o", "json").Require(t, 0, `"kind": "List"`, `"apiVersion": "v1"`, `"items": []`)
	harness.Run(t, "audit", "summary").Require(t, 0, "No request is recorded.")
	harness.Run(t, "audit", "summary", "-o", "json").Require(t, 0, `"byUser": []`)
	if r := harness.Run(t, "audit", "export").Require(t, 0); r.Stdout != "" {
		t.Errorf("got %q", r.Stdout)
	}
}

func TestListShowsTheNewestFirst(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	old := put(t, denial(48*time.Hour, nil))
	newest := put(t, denial(time.Minute, nil))
	middle := put(t, denial(time.Hour, nil))
	lines := harness.Run(t, "audit", "list").Require(t, 0).Lines()
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "LAST SEEN  OUTCOME") {
		t.Fatalf("got %q", lines)
	}
	for i, name := range []string{newest, middle, old} {
		if !strings.HasSuffix(lines[i+1], name) {
			t.Errorf("row %d is %s, want %s", i+1, lines[i+1], name)
		}
	}
	if diff := cmp.Diff([]string{newest, middle}, namesOf(t, harness.Run(t, "audit", "list", "--limit", "2", "-o", "json"))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Scripts depend on these fields.
func TestListAnswersInJSON(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	countMore(t, name)
	var result struct {
		Kind, APIVersion string
		Metadata         map[string]any
		Items            []map[string]any
	}
	harness.Run(t, "audit", "list", "--limit", "5", "-o", "json").Require(t, 0).Into(t, &result)
	if result.Kind != "List" || result.APIVersion != "v1" || len(result.Items) != 1 {
		t.Fatalf("got %v", result)
	}
	item := result.Items[0]
	spec, _ := item["spec"].(map[string]any)
	if item["kind"] != "AuditRecord" || item["apiVersion"] != "guardian.apigw.io/v1alpha1" || spec["outcome"] != "Denied" || spec["count"] != 2.0 {
		t.Errorf("got %v", item)
	}
	var record v1alpha1.AuditRecord
	if err := yaml.UnmarshalStrict([]byte(harness.Run(t, "audit", "show", name, "-o", "yaml").Require(t, 0).Stdout), &record); err != nil || record.Spec.Count != 2 {
		t.Errorf("got count %d, %v", record.Spec.Count, err)
	}
}

func TestListReadsEveryPage(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	const count = 1203 // three pages
	if err := records.Fill(t.Context(), harness.Of(t).Cluster.AdminConfig(), count); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(harness.Run(t, "audit", "list", "-o", "csv").Require(t, 0).Stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		seen[strings.Join(row, ",")] = true
		if row[0] == "" || row[7] == "" || !strings.HasPrefix(row[4], "data.token metadata.labels.n") {
			t.Errorf("got %q", row)
		}
	}
	if len(seen) != count {
		t.Errorf("%d records differ, want %d", len(seen), count)
	}
	for i := 1; i < len(rows)-1; i++ {
		if newer, older := rows[i][11], rows[i+1][11]; newer < older {
			t.Fatalf("row %d is of %s, and the next of %s", i, newer, older)
		}
	}
}

func TestListFilters(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	all := map[string]string{
		"old":      put(t, denial(8*24*time.Hour, nil)),
		"alice":    put(t, denial(time.Minute, nil)),
		"bob":      put(t, denial(2*time.Hour, func(f *audit.Event) { f.User.Name = "bob@Example.com" })),
		"delete":   put(t, denial(3*time.Hour, func(f *audit.Event) { f.Operation, f.Reason = "DELETE", "ReservedDelete" })),
		"observed": put(t, denial(4*time.Hour, func(f *audit.Event) { f.Outcome = v1alpha1.WouldDeny })),
		"role": put(t, denial(5*time.Hour, func(f *audit.Event) {
			f.Object = v1alpha1.ParseObjectReference("clusterroles.rbac.authorization.k8s.io/reserved")
		})),
		"imported": put(t, denial(6*time.Hour, func(f *audit.Event) { f.Outcome, f.Reason = v1alpha1.Unguarded, "GuardNotAsked" })),
	}
	for name, test := range map[string]struct {
		flags []string
		want  []string
	}{
		"nothing":              {nil, slices.Collect(maps.Keys(all))},
		"since hours":          {[]string{"--since", "150m"}, []string{"alice", "bob"}},
		"since days":           {[]string{"--since", "7d"}, []string{"alice", "bob", "delete", "observed", "role", "imported"}},
		"until days":           {[]string{"--until", "7d"}, []string{"old"}},
		"in between":           {[]string{"--since", "210m", "--until", "90m"}, []string{"bob", "delete"}},
		"since a time":         {[]string{"--since", time.Now().Add(-90 * time.Minute).Format(time.RFC3339)}, []string{"alice"}},
		"a part of a user":     {[]string{"--by-user", "EXAMPLE"}, []string{"bob"}},
		"a part of a resource": {[]string{"--resource", "clusterroles"}, []string{"role"}},
		"an operation":         {[]string{"--operation", "delete"}, []string{"delete"}},
		"an outcome":           {[]string{"--outcome", "wouldDeny"}, []string{"observed"}},
		"a reason":             {[]string{"--reason", "ReservedDelete"}, []string{"delete"}},
		"an import's reason":   {[]string{"--reason", "GuardNotAsked"}, []string{"imported"}},
		"several":              {[]string{"--outcome", "Denied", "--by-user", "alice", "--since", "1d", "--operation", "UPDATE"}, []string{"alice", "role"}},
		"what nothing is":      {[]string{"--by-user", "nobody"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			want := []string{}
			for _, which := range test.want {
				want = append(want, all[which])
			}
			list := harness.Run(t, append([]string{"audit", "list", "-o", "json"}, test.flags...)...)
			if diff := cmp.Diff(sorted(want), sorted(namesOf(t, list))); diff != "" {
				t.Errorf("list (-want +got)\n%s", diff)
			}
			exported := harness.Run(t, append([]string{"audit", "export"}, test.flags...)...).Require(t, 0)
			if got := strings.Count(exported.Stdout, "\n"); got != len(want) {
				t.Errorf("export has %d records, want %d", got, len(want))
			}
			var summary audit.Summary
			harness.Run(t, append([]string{"audit", "summary", "-o", "json"}, test.flags...)...).Require(t, 0).Into(t, &summary)
			if summary.Records != len(want) {
				t.Errorf("summary has %d records, want %d", summary.Records, len(want))
			}
		})
	}
}

func TestWideTableShowsWhatTheOthersLeaveOut(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	put(t, denial(time.Minute, nil))
	harness.Run(t, "audit", "list", "-o", "wide").Require(t, 0, "CHANGED", "data.token", "FIRST SEEN", "REQUEST UID", "GROUPS", "system:authenticated")
}

// kubectl needs nothing but the custom resource.
func TestKubectlGetDenials(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	for _, kind := range []string{"denials", "guardian", "auditrecords"} {
		args := []string{"get", kind}
		if kind != "guardian" { // unlocks are of this category too, and have no such fields
			args = append(args, "--field-selector", "spec.user.name=alice,spec.outcome=Denied")
		}
		out, _, err := harness.Of(t).Cluster.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"OUTCOME", "OPERATION", "RESOURCE", "USER", "REASON", "COUNT", "LAST SEEN", name, "Denied", "alice", "secrets/kube-system/reserved"} {
			if !strings.Contains(out, text) {
				t.Errorf("kubectl get %s does not say %q\n%s", kind, text, out)
			}
		}
	}
}

// Any client with the permission can store any text. No command prints control characters or spreadsheet formulas from it.
func TestAHostileRecordIsHarmlessInEveryForm(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	const hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
	record := denial(time.Minute, nil)
	record.Annotations = map[string]string{"note": hostile}
	spec := &record.Spec
	spec.User = v1alpha1.User{Name: "=cmd" + hostile, UID: hostile, Groups: []string{hostile}}
	spec.Message, spec.Resource, spec.Reason, spec.Changed = hostile, hostile, hostile, []string{hostile}
	spec.Object = v1alpha1.ObjectReference{Group: hostile, Resource: hostile, Namespace: hostile, Name: hostile}
	spec.LastRequestUID, spec.Replica, spec.Operation = hostile, hostile, "\x1b[2J"
	spec.Counts = []v1alpha1.ReplicaCount{{Replica: hostile, Count: 1}, {Replica: hostile + "2", Count: 1}}
	name := put(t, record)
	for _, args := range [][]string{
		{"list"},
		{"list", "-o", "wide"},
		{"list", "-o", "json"},
		{"list", "-o", "yaml"},
		{"list", "-o", "csv"},
		{"summary"},
		{"summary", "-o", "json"},
		{"show", name},
		{"show", name, "-o", "json"},
		{"show", name, "-o", "yaml"},
		{"export"},
		{"export", "--format", "csv"},
		{"export", "--format", "ocsf"},
		{"export", "--format", "cloudevents"},
	} {
		out := harness.Run(t, append([]string{"audit"}, args...)...).Require(t, 0).Stdout
		if strings.ContainsAny(out, "\x1b\x07\u202e") || strings.Contains(out, `\u001b`) || strings.Contains(out, ",=cmd") {
			t.Errorf("audit %s: %q", strings.Join(args, " "), out)
		}
	}
}

func TestExportIsOneEventToALineOldestFirst(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	newer := put(t, denial(time.Minute, nil))
	older := put(t, denial(time.Hour, nil))
	for format, path := range map[string][]string{
		"jsonl": {"metadata", "name"}, "ocsf": {"unmapped", "record"}, "cloudevents": {"data", "metadata", "name"},
	} {
		var names []string
		for _, line := range harness.Run(t, "audit", "export", "--format", format).Require(t, 0).Lines() {
			var value any
			if err := json.Unmarshal([]byte(line), &value); err != nil {
				t.Fatal(err)
			}
			for _, key := range path {
				value = value.(map[string]any)[key]
			}
			names = append(names, value.(string))
		}
		if diff := cmp.Diff([]string{older, newer}, names); diff != "" {
			t.Errorf("%s (-want +got)\n%s", format, diff)
		}
	}
}

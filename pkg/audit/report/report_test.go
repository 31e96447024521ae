// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew; read the difference before you commit it")

// hostile is a text that a user of the cluster may choose.
const hostile = `<script src=//evil.example>"'&</script> [x](https://evil.example) | @all www.evil.example`

func at(day, hour int) time.Time { return time.Date(2026, 11, day, hour, 0, 0, 0, time.UTC) }

// input has the records of the exports, which are one of each outcome, and a hostile one.
func input(t *testing.T) Input {
	t.Helper()
	data, err := os.ReadFile("../export/testdata/records.yaml")
	if err != nil {
		t.Fatal(err)
	}
	list := &v1alpha1.AuditRecordList{}
	if err := yaml.UnmarshalStrict(data, list); err != nil {
		t.Fatal(err)
	}
	event := audit.Event{
		Time: at(26, 9), Outcome: v1alpha1.Exempted, Operation: "UPDATE", Reason: hostile, Message: hostile, Justification: hostile,
		User: v1alpha1.User{Name: hostile}, Object: v1alpha1.ObjectReference{Resource: "secrets", Namespace: "kube-system", Name: hostile},
	}
	record := event.Record("r", 2)
	record.Status.Acknowledgements = []v1alpha1.Acknowledgement{{By: hostile, At: metav1.NewTime(at(26, 10)), Note: hostile, Count: 1}}
	for i := range list.Items {
		audit.Clean(&list.Items[i])
	}
	unlock := v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{Name: "unlock-x7k2p", CreationTimestamp: metav1.NewTime(at(25, 8))}}
	unlock.Spec = v1alpha1.UnlockSpec{Reason: hostile, RequestedBy: "alice", ExpiresAt: metav1.NewTime(at(25, 9))}
	unlock.Status = v1alpha1.UnlockStatus{ApprovedBy: "carol", State: v1alpha1.UnlockExpired}
	before := unlock
	before.Name, before.CreationTimestamp, before.Spec.ExpiresAt = "unlock-before", metav1.NewTime(at(1, 8)), metav1.NewTime(at(1, 9))
	from, to := metav1.NewMicroTime(at(24, 0)), metav1.NewMicroTime(at(27, 0))
	return Input{
		Cluster: "prod <1>", Version: "v1.2.3", Since: at(20, 0), Made: at(28, 12), Place: time.UTC,
		Records: append(list.Items, *record), Unlocks: []v1alpha1.Unlock{unlock, before},
		Log: &apilog.Report{
			Events: 1000, From: &from, To: &to, Writes: apilog.Counts{Denied: 20, LetThrough: 4, Unguarded: 1},
			Missing: []apilog.Difference{
				{Record: "a", Outcome: v1alpha1.Denied, User: hostile, Logged: 5, Recorded: 2, FirstTime: from},
				{Record: "b", Outcome: v1alpha1.Unguarded, User: "bob", Logged: 1, FirstTime: from},
			},
			Surplus: []apilog.Difference{}, Away: []apilog.Span{{From: from, To: to, Failed: 2, Unguarded: 1}},
		},
		BrokenLines: 1,
	}
}

func write(t *testing.T, in Input, format Format) string {
	t.Helper()
	var out bytes.Buffer
	if err := New(in).Write(&out, format); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWriteIsAsItsGoldenFile(t *testing.T) {
	t.Parallel()
	for _, format := range Formats() {
		golden, got := "testdata/report."+string(format)+".golden", write(t, input(t), format)
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
			t.Errorf("%s: (-want +got)\n%s", format, diff)
		}
	}
}

// An HTML parser that knows no exception finds only the elements and attributes of this package, and each foreign text as a text.
func TestThePageHasNoMarkupOfForeignText(t *testing.T) {
	t.Parallel()
	page := write(t, input(t), HTML)
	decoder := xml.NewDecoder(strings.NewReader(page))
	decoder.Strict, decoder.AutoClose, decoder.Entity = false, []string{"meta"}, xml.HTMLEntity
	tags := map[string]int{}
	foreign := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			tags[token.Name.Local]++
			for _, attribute := range token.Attr {
				name := attribute.Name.Local
				if strings.HasPrefix(name, "on") || name == "style" || name == "src" || name == "href" || strings.Contains(attribute.Value, "evil") {
					t.Errorf("<%s %s=%q>", token.Name.Local, name, attribute.Value)
				}
			}
		case xml.CharData:
			if strings.Contains(string(token), hostile) {
				foreign++
			}
		}
	}
	for _, tag := range []string{"script", "img", "link", "iframe", "a", "form", "base"} {
		if tags[tag] > 0 {
			t.Errorf("%d elements %s", tags[tag], tag)
		}
	}
	if foreign < 8 || tags["table"] < 9 || tags["style"] != 1 {
		t.Errorf("%d foreign texts, elements %v", foreign, tags)
	}
	for _, foreign := range []string{"url(", "@import", "http:", "https:"} {
		if strings.Contains(style, foreign) {
			t.Errorf("the style has %q", foreign)
		}
	}
}

func TestMarkdownHasNoMarkupOfForeignText(t *testing.T) {
	t.Parallel()
	text := write(t, input(t), Markdown)
	for _, markup := range []string{"<script", "://", "www.", " @all", "[x]"} {
		if strings.Contains(text, markup) {
			t.Errorf("the document has %q", markup)
		}
	}
	columns := 0
	for line := range strings.Lines(text) {
		count := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if count == 0 {
			columns = 0
		} else if columns = max(columns, count); count != columns {
			t.Errorf("%d of %d columns: %s", count, columns, line)
		}
	}
}

func TestAReportCountsEachWriteOnce(t *testing.T) {
	t.Parallel()
	in := input(t)
	var want int64
	for i := range in.Records {
		want += in.Records[i].Spec.Count
	}
	r := New(in)
	for name, tallies := range map[string][]Tally{
		"outcome": r.ByOutcome, "reason": r.ByReason, "user": r.ByUser, "resource": r.ByResource, "trend": r.Trend, "totals": {r.Totals},
	} {
		var sum int64
		for _, tally := range tallies {
			sum += tally.Writes
			if tally.Writes != tally.Denied+tally.Allowed+tally.Other {
				t.Errorf("%s: %+v", name, tally)
			}
		}
		if sum != want {
			t.Errorf("%s: %d writes, want %d", name, sum, want)
		}
	}
	if r.Completeness.MissingDenials != 3 || r.Completeness.MissingWrites != 4 || len(r.Trend) != 9 {
		t.Errorf("got %+v, %d days", r.Completeness, len(r.Trend))
	}
	var names []string
	for _, unlock := range r.Unlocks {
		names = append(names, unlock.Name)
	}
	if strings.Contains(strings.Join(names, " "), "unlock-before") || len(names) == 0 {
		t.Errorf("the unlocks are %v", names)
	}
	if len(r.Acknowledgements) != 3 || len(r.Unacknowledged) != len(in.Records)-1 || len(r.Gaps) != 4 || len(r.Exemptions) != 2 {
		t.Errorf("%d acknowledgements, %d unacknowledged, %d gaps, %d exemptions", len(r.Acknowledgements), len(r.Unacknowledged), len(r.Gaps), len(r.Exemptions))
	}
}

func TestAReportOfNothing(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]Input{
		"no record":                  {Made: at(28, 12), Place: time.UTC},
		"a time that is to come":     {Made: at(28, 12), Place: time.UTC, Since: at(29, 0)},
		"more than two months":       {Made: at(28, 12), Place: time.UTC, Since: at(-99, 0)},
		"unlocks that are not known": {Made: at(28, 12), Place: time.UTC, UnlocksProblem: "forbidden"},
	} {
		for _, format := range Formats() {
			if text := write(t, in, format); text == "" {
				t.Errorf("%s: nothing in %s", name, format)
			}
		}
		if trend := New(in).Trend; len(trend) > maxDays {
			t.Errorf("%s: %d rows", name, len(trend))
		}
	}
	var decoded map[string]any
	if err := json.Unmarshal([]byte(write(t, Input{Made: at(28, 12), Place: time.UTC}, JSON)), &decoded); err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"byUser", "trend", "gaps", "unlocks", "exemptions", "acknowledgements", "unacknowledged"} {
		if _, isList := decoded[list].([]any); !isList {
			t.Errorf("%s is %v", list, decoded[list])
		}
	}
	if err := New(Input{Place: time.UTC}).Write(io.Discard, "xml"); err == nil {
		t.Error("an unknown format is written")
	}
}

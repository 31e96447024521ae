// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package auditimport compares, on a real control plane, the guard's audit records with the API server's audit log.
package auditimport

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

var capture = flag.Bool("capture", false, "write the audit logs of this run to the test data of pkg/audit/apilog")

const captured = "../../pkg/audit/apilog/testdata"

func TestMain(m *testing.M) {
	harness.Main(m, 1, harness.WithWorld)
}

// span is a part of the audit log, and what the API server answered to the writes that were sent meanwhile.
type span struct {
	log    string
	offset int64
	// refused is the number of writes that failed for want of the guard, and passed of those that were made.
	refused, passed int
}

func begin(t *testing.T, log string) *span {
	t.Helper()
	info, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	return &span{log: log, offset: info.Size()}
}

// end returns a file with the part of the log that has been written since.
func (s *span) end(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	content = content[s.offset:]
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if *capture {
		keep(t, name, content)
	}
	return path
}

// keep writes the events about the four kinds to the test data, with a canary in the place of the token.
func keep(t *testing.T, name string, content []byte) {
	t.Helper()
	token, _ := harness.Of(t).World.Token.Live.Object["data"].(map[string]any)
	for key, value := range token {
		if key != "namespace" {
			content = bytes.ReplaceAll(content, []byte(value.(string)), []byte(canary()))
		}
	}
	var kept []byte
	for line := range bytes.Lines(content) {
		if bytes.Contains(line, []byte("apigw-ingress")) || bytes.Contains(line, []byte("mallory")) {
			kept = append(kept, line...)
		}
	}
	if err := os.WriteFile(filepath.Join(captured, name), kept, 0o600); err != nil {
		t.Fatal(err)
	}
}

// canary is the value of a Secret, as an object holds it. No output and no record may contain it.
func canary() string { return base64.StdEncoding.EncodeToString([]byte(corpus.Canary)) }

// send sends a write and wants one of the codes.
func send(t *testing.T, write scenario.Write, codes ...int) scenario.Answer {
	t.Helper()
	answer, err := harness.Of(t).World.Guarded.Do(t.Context(), write)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(codes, answer.Code) {
		t.Fatalf("%s %s by %q: got %d, want one of %v: %s", write.Method, write.Path, write.As.User, answer.Code, codes, answer.Body)
	}
	return answer
}

func by(user string, write scenario.Write) scenario.Write {
	write.As = scenario.Identity{User: user, Groups: []string{"system:authenticated"}}
	return write
}

func label(object *scenario.Object, value string) scenario.Write {
	return scenario.Merge(object, `{"metadata":{"labels":{"team":`+value+`}}}`)
}

// until sends writes until the API server, which hears of a registration after some time, answers with the code, and counts
// what became of them.
func (s *span) until(t *testing.T, code int, write func(i int) scenario.Write) {
	t.Helper()
	for i := range 1000 {
		got := send(t, write(i), http.StatusOK, http.StatusForbidden, http.StatusInternalServerError).Code
		switch got {
		case http.StatusOK:
			s.passed++
		case http.StatusInternalServerError:
			s.refused++
		}
		if got == code {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the API server does not answer with %d", code)
}

// reported is what the test looks at of `audit import -o json`.
type reported struct {
	Writes struct {
		Denied, LetThrough, Passed, Unguarded, Failed, DryRuns, Unclear, Duplicates int
	}
	Agreeing int
	Missing  []difference
	Surplus  []difference
	Away     []struct{ Failed, Unguarded int }
}

type difference struct {
	Outcome, Operation, Resource, User, Reason string
	Logged, Recorded                           int
}

func importJSON(t *testing.T, code int, args ...string) reported {
	t.Helper()
	var report reported
	harness.Run(t, append([]string{"audit", "import", "-o", "json"}, args...)...).Require(t, code).Into(t, &report)
	report.Missing = joined(report.Missing)
	return report
}

// joined sums up what differs in its window of time only: a test may run from one into the next.
func joined(differences []difference) []difference {
	sums := []difference{}
	for _, d := range differences {
		at := slices.IndexFunc(sums, func(sum difference) bool {
			return sum.Outcome == d.Outcome && sum.Resource == d.Resource && sum.User == d.User && sum.Reason == d.Reason
		})
		if at < 0 {
			sums = append(sums, d)
			continue
		}
		sums[at].Logged += d.Logged
		sums[at].Recorded += d.Recorded
	}
	return sums
}

func records(t *testing.T) []v1alpha1.AuditRecord {
	t.Helper()
	records, err := harness.Records(t).List(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func awaitRecorded(t *testing.T, writes int64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d writes are recorded", writes), func() (bool, any) {
		var total int64
		for _, record := range records(t) {
			total += record.Spec.Count
		}
		return total == writes, total
	})
}

// TestTheLogTellsWhatTheRecordsLack plays a day of a guard: denials, dry-runs and a restoration; the guard dies and the API
// server refuses; the registration goes and a reserved resource is edited; the guard comes back.
func TestTheLogTellsWhatTheRecordsLack(t *testing.T) {
	harness.Take(t)
	w, spool := harness.Of(t).World, t.TempDir()
	guard := harness.StartGuard(t, "--spool-dir="+spool)
	sent := begin(t, harness.Of(t).Cluster.AuditLog())
	sent.until(t, http.StatusForbidden, func(int) scenario.Write { return by("alice", label(w.Role, `"a"`)) })
	for range 2 {
		send(t, by("alice", label(w.Role, `"a"`)), http.StatusForbidden)
	}
	send(t, by("bob", scenario.Delete(w.Binding)), http.StatusForbidden)
	send(t, by("bob", scenario.Delete(w.Binding)), http.StatusForbidden)
	send(t, by("bob", scenario.Delete(w.Binding).DryRun()), http.StatusForbidden)
	inBody := scenario.Delete(w.Binding)
	inBody.Body = []byte(`{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`)
	send(t, by("bob", inBody), http.StatusForbidden)
	send(t, by("carol", scenario.Merge(w.Account, `{"metadata":{"annotations":null}}`)), http.StatusOK)

	guard.Kill()
	for range 2 {
		send(t, by("dave", label(w.Role, `"d"`)), http.StatusInternalServerError)
		sent.refused++
	}
	harness.RemoveRegistration(t)
	sent.until(t, http.StatusOK, func(int) scenario.Write { return by("eve", label(w.Role, `"e"`)) })
	edits := sent.passed

	harness.LaunchGuard(t, "--spool-dir="+spool) // StartGuard would add dry-runs to the log
	sent.until(t, http.StatusForbidden, func(i int) scenario.Write { return by("eve", label(w.Role, fmt.Sprintf(`"e%d"`, i))) })
	send(t, by("frank", label(w.Role, "null")), http.StatusOK)
	log := sent.end(t, "metadata.jsonl")
	awaitRecorded(t, 3+2+1+1)

	got := importJSON(t, 3, log)
	role := "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
	unguarded := difference{
		Outcome: "Unguarded", Operation: "UPDATE", Resource: role, User: "eve", Reason: "GuardNotAsked", Logged: sent.passed,
	}
	want := reported{Agreeing: len(records(t)), Missing: []difference{unguarded}, Surplus: []difference{}}
	want.Writes.Denied, want.Writes.LetThrough, want.Writes.Passed, want.Writes.DryRuns = 3+2+1, 1, 1, 2
	want.Writes.Unguarded, want.Writes.Failed = sent.passed, sent.refused
	want.Away = append(want.Away, struct{ Failed, Unguarded int }{sent.refused, sent.passed})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%d edits before the guard came back (-want +got):\n%s", edits, diff)
	}

	t.Run("a record that is gone is missing", func(t *testing.T) { testStore(t, log, unguarded) })
}

func testStore(t *testing.T, log string, unguarded difference) {
	t.Helper()
	var resource string
	for _, record := range records(t) {
		if record.Spec.User.Name != "bob" {
			continue
		}
		resource = record.Spec.Resource
		if _, stderr, err := harness.Of(t).Cluster.Kubectl(t.Context(), "delete", "denials", record.Name); err != nil {
			t.Fatalf("%v: %s", err, stderr)
		}
	}
	lost := difference{Outcome: "Denied", Operation: "DELETE", Resource: resource, User: "bob", Reason: "ReservedDelete", Logged: 2}
	if diff := cmp.Diff([]difference{lost, unguarded}, importJSON(t, 3, log).Missing); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.Log("\n" + harness.Run(t, "audit", "import", "--store", log).Require(t, 0).Stdout)
	for range 2 {
		if again := importJSON(t, 0, "--store", log); len(again.Missing) > 0 || len(again.Surplus) > 0 {
			t.Errorf("after it was stored, the log and the records still differ: %+v", again)
		}
	}
	imported := slices.DeleteFunc(records(t), func(r v1alpha1.AuditRecord) bool { return r.Spec.Source != v1alpha1.SourceImport })
	counts := map[string]int64{}
	for _, record := range imported {
		counts[string(record.Spec.Outcome)+" "+record.Spec.User.Name] += record.Spec.Count
	}
	if diff := cmp.Diff(map[string]int64{"Denied bob": 2, "Unguarded eve": int64(unguarded.Logged)}, counts); diff != "" {
		t.Errorf("imported records (-want +got):\n%s", diff)
	}
}

// TestWhatCannotBeReadIsSaid gives import what is no whole audit log.
func TestWhatCannotBeReadIsSaid(t *testing.T) {
	harness.Take(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	event := []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",` +
		`"verb":"get","requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","stageTimestamp":"2026-01-01T00:00:00.000002Z"}` + "\n")
	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, _ = writer.Write(event)
	_ = writer.Flush()
	sound, empty := file("sound.log", event), file("empty.log", nil)
	broken := file("broken.log", slices.Concat(event, []byte("{\"kind\":\n"), event))
	foreign, cut := file("foreign.log", []byte("hello\n")), file("cut.log.gz", zipped.Bytes())
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file is named":                              {nil, 2, "audit import"},
		"an unknown format":                             {[]string{"-o", "xml", sound}, 2, "table, json, yaml or"},
		"a file that is not there":                      {[]string{sound, filepath.Join(dir, "absent")}, 1, "no such file"},
		"a directory":                                   {[]string{sound, dir}, 1, dir},
		"an empty file alone":                           {[]string{empty}, 1, ""},
		"an empty file and another":                     {[]string{empty, sound}, 0, "empty.log"},
		"a file of another kind":                        {[]string{sound, foreign}, 1, "foreign.log"},
		"a compressed file that ends too soon":          {[]string{cut}, 1, "cut.log.gz"},
		"a broken line":                                 {[]string{broken}, 1, "broken.log: line 2"},
		"a broken line that is known":                   {[]string{"--skip-broken", broken}, 0, "broken.log"},
		"a file of another kind is no such line":        {[]string{"--skip-broken", sound, foreign}, 1, "foreign.log"},
		"a directory of reservations that is not there": {[]string{"--reservations", filepath.Join(dir, "absent"), sound}, 1, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			ran := harness.Run(t, append([]string{"audit", "import"}, test.args...)...).Require(t, test.code, test.says)
			if slices.Contains(test.args, sound) && test.code == 1 && !strings.Contains(name, "reservations") &&
				!strings.Contains(ran.Stdout, "Read 1 events") {
				t.Errorf("what could be read is not reported: %q", ran.Stdout)
			}
		})
	}
}

// bodiesPolicy logs all that the API server can log.
const bodiesPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
- level: None
`

// TestBodiesTellMoreAndNothingOfThemGetsOut lets the API server log bodies, while no guard is there.
func TestBodiesTellMoreAndNothingOfThemGetsOut(t *testing.T) {
	harness.Take(t)
	w, dir := harness.Of(t).World, t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte(bodiesPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := harness.Of(t).Cluster.StartAPIServer(t.Context(), "--audit-policy-file="+policy, "--audit-log-path="+log); err != nil {
		t.Fatal(err)
	}
	sent := begin(t, log)
	// Not of the type that the controller manager looks at: only this test writes to them.
	mint := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"mallory","annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}},"data":{"x":"` + canary() + `"}}`
	send(t, by("mallory", scenario.Create(w.Token, mint)), http.StatusCreated)
	generated := `{"apiVersion":"v1","kind":"Secret","metadata":{"generateName":"apigw-ingress-token-","labels":{"by":"mallory"}},"data":{"x":"` + canary() + `"}}`
	send(t, by("mallory", scenario.Create(w.Token, generated)), http.StatusCreated)
	collection := scenario.Write{
		Method: http.MethodDelete, Path: w.Token.Collection, ContentType: scenario.JSON, Query: map[string][]string{"labelSelector": {"by=mallory"}},
	}
	send(t, by("mallory", collection), http.StatusOK)
	send(t, by("mallory", scenario.Write{Method: http.MethodDelete, Path: w.Token.Collection + "/mallory", ContentType: scenario.JSON}), http.StatusOK)
	part := sent.end(t, "bodies.jsonl")

	content, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(canary())) {
		t.Fatal("the log holds no value of a Secret: the test would prove nothing")
	}
	got := importJSON(t, 3, part)
	// The last deletion does not count: of what it deletes, a log has the name alone.
	if got.Writes.Unguarded != 3 || got.Writes.Unclear != 0 {
		t.Errorf("got %+v, want 3 writes of mallory, and nothing unclear", got.Writes)
	}
	for _, output := range []string{"table", "json", "yaml"} {
		ran := harness.Run(t, "audit", "import", "-o", output, part).Require(t, 3)
		requireNoValue(t, output, ran.Stdout+ran.Stderr)
	}
	harness.Run(t, "audit", "import", "--store", part).Require(t, 0)
	stored, err := json.Marshal(records(t))
	if err != nil {
		t.Fatal(err)
	}
	requireNoValue(t, "records", string(stored))
}

func requireNoValue(t *testing.T, where, text string) {
	t.Helper()
	for _, value := range []string{canary(), corpus.Canary} {
		if strings.Contains(text, value) {
			t.Errorf("%s: there is a value of a Secret: %s", where, text)
		}
	}
}

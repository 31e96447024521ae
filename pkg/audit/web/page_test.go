// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

const host = "127.0.0.1:8087"

// noon is when the facts of these tests happened, or some time before.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// fact is a record of one write by a user some minutes before noon.
func fact(outcome v1alpha1.Outcome, operation admissionv1.Operation, resource, user string, minutes int) *v1alpha1.AuditRecord {
	f := audit.Event{
		Time: noon.Add(-time.Duration(minutes) * time.Minute), Outcome: outcome, Operation: operation, Object: v1alpha1.ParseObjectReference(resource),
		Reason: "Reserved" + string(operation), Message: resource + " is reserved.", User: v1alpha1.User{Name: user, Groups: []string{"people"}},
		Changed: []string{"rules[2].verbs"},
	}
	return f.Record("a", 1)
}

// sample is four records, the newest first.
func sample() []*v1alpha1.AuditRecord {
	return []*v1alpha1.AuditRecord{
		fact(v1alpha1.Denied, "UPDATE", "clusterroles/a", "alice", 1),
		fact(v1alpha1.Denied, "DELETE", "secrets/kube-system/b", "malice", 20),
		fact(v1alpha1.WouldDeny, "DELETE", "clusterroles/a", "alice", 60),
		fact(v1alpha1.Restored, "UPDATE", "secrets/kube-system/b", "", 3000),
	}
}

func newPage(t *testing.T, records ...*v1alpha1.AuditRecord) *Page {
	t.Helper()
	feed := NewFeed()
	for _, record := range records {
		feed.Source(0).Changed(record)
	}
	return New(feed, "prod")
}

func ask(page *Page, method, path, host string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, nil)
	request.Host = host
	answer := httptest.NewRecorder()
	page.ServeHTTP(answer, request)
	return answer
}

// get asks below the page's own path, and reads the answer as JSON.
func get(t *testing.T, page *Page, path string, code int, into any) {
	t.Helper()
	answer := ask(page, http.MethodGet, page.Path()+path, host)
	if answer.Code != code {
		t.Fatalf("%s: got %d, want %d: %s", path, answer.Code, code, answer.Body)
	}
	if err := json.Unmarshal(answer.Body.Bytes(), into); err != nil {
		t.Fatalf("%s: %v: %s", path, err, answer.Body)
	}
}

func TestOnlyThePageItselfGetsAnAnswer(t *testing.T) {
	page := newPage(t, sample()...)
	token := strings.Trim(page.Path(), "/")
	for name, test := range map[string]struct {
		method, path, host string
		code               int
	}{
		"the page":                          {http.MethodGet, "/" + token + "/", host, 200},
		"the head of the page":              {http.MethodHead, "/" + token + "/", host, 200},
		"the records":                       {http.MethodGet, "/" + token + "/api/view", host, 200},
		"through a tunnel of another port":  {http.MethodGet, "/" + token + "/", "localhost:9000", 200},
		"on the other loopback":             {http.MethodGet, "/" + token + "/", "[::1]:9000", 200},
		"without a port":                    {http.MethodGet, "/" + token + "/", "127.0.0.1", 200},
		"no token":                          {http.MethodGet, "/", host, 404},
		"records without a token":           {http.MethodGet, "/api/view", host, 404},
		"a wrong token":                     {http.MethodGet, "/" + strings.Repeat("A", len(token)) + "/", host, 404},
		"a part of the token":               {http.MethodGet, "/" + token[1:] + "/", host, 404},
		"the token and more":                {http.MethodGet, "/" + token + "A/", host, 404},
		"the token in small letters":        {http.MethodGet, "/" + strings.ToLower(token) + "/", host, 404},
		"the token without a slash":         {http.MethodGet, "/" + token, host, 404},
		"the token not in the first place":  {http.MethodGet, "/x/" + token + "/", host, 404},
		"a file that is not there":          {http.MethodGet, "/" + token + "/nothing.js", host, 404},
		"a name that resolves to this host": {http.MethodGet, "/" + token + "/", "evil.example:8087", 403},
		"a name that starts like loopback":  {http.MethodGet, "/" + token + "/", "127.0.0.1.evil.example", 403},
		"an address of the network":         {http.MethodGet, "/" + token + "/", "192.0.2.7:8087", 403},
		"no name at all":                    {http.MethodGet, "/" + token + "/", "", 403},
		"a POST":                            {http.MethodPost, "/" + token + "/api/view", host, 405},
		"a PUT":                             {http.MethodPut, "/" + token + "/api/view", host, 405},
		"a DELETE":                          {http.MethodDelete, "/" + token + "/api/records/a", host, 405},
		"a preflight of another site":       {http.MethodOptions, "/" + token + "/api/view", host, 405},
		"a POST without a token":            {http.MethodPost, "/", host, 405},
	} {
		t.Run(name, func(t *testing.T) {
			answer := ask(page, test.method, test.path, test.host)
			if answer.Code != test.code {
				t.Errorf("got %d, want %d", answer.Code, test.code)
			}
			if body := answer.Body.String(); answer.Code != 200 && strings.Contains(body, "alice") || strings.Contains(body, token) {
				t.Errorf("it tells %s", body)
			}
			checkHeaders(t, answer.Header())
		})
	}
}

func checkHeaders(t *testing.T, header http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy":      "default-src 'none'; ",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cache-Control":                "no-store",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := header.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("another site may read it: %s", got)
	}
}

func TestSecurityPolicyTakesNothingInlineOrFromElsewhere(t *testing.T) {
	for directive := range strings.SplitSeq(securityPolicy, "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		switch sources {
		case "'none'", "'self'", "'script'":
		default:
			t.Errorf("%s allows %s", name, sources)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	first, second := newPage(t), newPage(t)
	if first.Path() == second.Path() {
		t.Errorf("two pages have the path %s", first.Path())
	}
}

// The page must work where nothing but this server can be reached, and must not parse foreign texts.
func TestFilesKeepToTheirServerAndToText(t *testing.T) {
	page := newPage(t)
	types := map[string]string{".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
	err := fs.WalkDir(static, "static", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(file, "static/")
		if name == "index.html" {
			name = ""
		}
		answer := ask(page, http.MethodGet, page.Path()+name, host)
		if kind := answer.Header().Get("Content-Type"); answer.Code != 200 || !strings.HasPrefix(kind, types[path.Ext(file)]) {
			t.Errorf("%s: %d %s", file, answer.Code, kind)
		}
		text := strings.ReplaceAll(answer.Body.String(), "http://www.w3.org/2000/svg", "")
		for _, forbidden := range []string{"://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=", "<script>", "@import", "url("} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s holds %s", file, forbidden)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestViewShowsWhatFitsTheFilter(t *testing.T) {
	page := newPage(t, sample()...)
	names := map[string]string{}
	for i, record := range sample() {
		names[record.Name] = fmt.Sprint(i)
	}
	for name, test := range map[string]struct{ query, want string }{
		"everything, the newest first":           {"", "0123"},
		"a part of a user's name":                {"user=ALICE", "012"},
		"a user by the whole name":               {"user=%22alice%22", "02"},
		"who is not known":                       {"user=%22%22", "3"},
		"a resource":                             {"resource=secrets", "13"},
		"an operation":                           {"operation=delete", "12"},
		"an outcome":                             {"outcome=Restored", "3"},
		"a reason":                               {"reason=ReservedUPDATE", "03"},
		"no unlock":                              {"text=unlock-x", ""},
		"a part of the message":                  {"text=b+is+reserved", "13"},
		"a changed path":                         {"text=rules[2]", "0123"},
		"a group":                                {"text=people", "0123"},
		"since a time":                           {"since=2026-11-25T11:30:00Z", "01"},
		"until a time":                           {"until=2026-11-25T12:30:00%2B01:00", "23"},
		"several at once":                        {"user=alice&operation=DELETE&until=2026-11-25T11:30:00Z", "2"},
		"nothing":                                {"user=nobody", ""},
		"empty parameters":                       {"user=&outcome=&page=", "0123"},
		"a page":                                 {"size=3&page=2", "3"},
		"a page past the last":                   {"size=3&page=9", "3"},
		"a time zone of which nobody has heard":  {"zone=Nowhere/Land", "0123"},
		"a filter that is no regular expression": {"text=rules[", "0123"},
		"a user whose name is half of a quote":   {"user=%22", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got view
			get(t, page, "api/view?"+test.query, 200, &got)
			shown := ""
			for _, row := range got.Rows {
				shown += names[row.Name]
			}
			if shown != test.want {
				t.Errorf("got records %q, want %q", shown, test.want)
			}
		})
	}
}

// The search field finds the writes under an unlock, and the panel of a record names it.
func TestTheUnlockOfARecordIsShownAndFound(t *testing.T) {
	under := func(unlock, resource string) *v1alpha1.AuditRecord {
		e := audit.Event{
			Time: noon, Outcome: v1alpha1.Unlocked, Operation: "UPDATE", Object: v1alpha1.ParseObjectReference(resource), Reason: "Unlocked",
			User: v1alpha1.User{Name: "alice"}, Unlock: unlock, Justification: "ticket 4711",
		}
		return e.Record("a", 1)
	}
	first, second, other := under("unlock-x7k2p", "clusterroles/a"), under("unlock-x7k2p", "secrets/kube-system/b"), under("unlock-c4m9q", "clusterroles/a")
	page := newPage(t, append(sample(), first, second, other)...)
	for query, want := range map[string][]string{"unlock-X7K2P": {first.Name, second.Name}, "unlock-c": {other.Name}, "4711": {first.Name, second.Name, other.Name}} {
		var found view
		get(t, page, "api/view?text="+query, 200, &found)
		var names []string
		for _, row := range found.Rows {
			names = append(names, row.Name)
		}
		slices.Sort(want)
		slices.Sort(names)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("%s (-want +got)\n%s", query, diff)
		}
	}
	var shown struct {
		Spec struct{ Unlock, Justification string }
	}
	get(t, page, "api/records/"+first.Name, 200, &shown)
	if shown.Spec.Unlock != "unlock-x7k2p" || shown.Spec.Justification != "ticket 4711" {
		t.Errorf("got %+v", shown)
	}
}

func TestViewCountsWrites(t *testing.T) {
	records := sample()
	records[0].Spec.Count = 40
	var got view
	get(t, newPage(t, records...), "api/view?outcome=Denied&size=1&until=2026-11-25T12:00:00Z", 200, &got)
	type counts struct {
		Cluster                      string
		Stored, Records, Page, Pages int
		Writes                       int64
		Outcomes                     []audit.Tally
		Users                        ranking
		Choices                      choices
	}
	want := counts{
		Cluster: "prod", Stored: 4, Records: 2, Page: 1, Pages: 2, Writes: 41,
		Outcomes: []audit.Tally{{Name: "Denied", Count: 41}, {Name: "Restored", Count: 1}, {Name: "WouldDeny", Count: 1}},
		Users:    ranking{Of: 2, Top: []audit.Tally{{Name: "alice", Count: 40}, {Name: "malice", Count: 1}}},
		Choices: choices{
			Outcomes: []string{"Denied", "Restored", "WouldDeny"}, Operations: []string{"DELETE", "UPDATE"},
			Reasons: []string{"ReservedDELETE", "ReservedUPDATE"},
		},
	}
	if diff := cmp.Diff(want, counts{
		got.Cluster, got.Stored, got.Records, got.Page, got.Pages, got.Writes, got.Outcomes, got.Users, got.Choices,
	}); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	total := int64(0)
	for _, bar := range got.Timeline.Bars {
		total += bar.Counts[v1alpha1.Denied]
	}
	if total != got.Writes {
		t.Errorf("the timeline counts %d writes, want %d", total, got.Writes)
	}
}

func TestBadQueriesSayWhatIsWrong(t *testing.T) {
	page := newPage(t)
	for query, says := range map[string]string{
		"users=alice":      `there is no parameter "users"`,
		"page=0":           "give a number from 1",
		"page=one":         "give a number from 1",
		"size=201":         "1 to 200",
		"since=yesterday":  "give a time such as",
		"until=2026-11-25": "give a time such as",
		"since=2026-11-25T12:00:00Z&until=2026-11-25T12:00:00Z": "the time ends before it begins",
	} {
		var got struct{ Error string }
		get(t, page, "api/view?"+query, 400, &got)
		if !strings.Contains(got.Error, says) {
			t.Errorf("%s: got %q, want %q", query, got.Error, says)
		}
	}
}

// details is the answer about one record.
type details struct {
	Name   string
	Spec   v1alpha1.AuditRecordSpec
	Advice string
}

func TestRecordShowsAllFieldsAndWhatToDo(t *testing.T) {
	record := sample()[0]
	page := newPage(t, record)
	var got details
	get(t, page, "api/records/"+record.Name, 200, &got)
	if diff := cmp.Diff(details{Name: record.Name, Spec: record.Spec, Advice: audit.Advice(&record.Spec)}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var gone struct{ Error string }
	get(t, page, "api/records/gone", 404, &gone)
	if !strings.Contains(gone.Error, "no such record") {
		t.Errorf("got %q", gone.Error)
	}
}

func TestFeedFollowsTheCluster(t *testing.T) {
	feed := NewFeed()
	record := sample()[0]
	step := func(what string, stored int, count int64, lost string) {
		t.Helper()
		now := feed.snapshot()
		var counted int64
		for _, record := range now.records {
			counted += record.Spec.Count
		}
		if len(now.records) != stored || counted != count || now.signal.Lost != lost {
			t.Errorf("%s: %d records, %d writes, lost %q", what, len(now.records), counted, now.signal.Lost)
		}
	}
	step("at first", 0, 0, "")
	feed.Source(0).Changed(record)
	step("a record", 1, 1, "")
	again := record.DeepCopy()
	again.Spec.Count = 7
	_, changed := feed.signal()
	feed.Source(0).Changed(again)
	<-changed
	step("the record counts more", 1, 7, "")
	feed.Source(0).Reached(errors.New("connection refused"))
	step("the cluster is gone", 1, 7, "connection refused")
	before, _ := feed.signal()
	feed.Source(0).Reached(errors.New("connection refused"))
	if after, _ := feed.signal(); after.Revision != before.Revision {
		t.Errorf("the same loss is told twice: %v, %v", before, after)
	}
	feed.Source(0).Reached(nil)
	feed.Source(0).Removed(record.Name)
	feed.Source(0).Removed("never there")
	step("the record is gone", 0, 0, "")
}

func TestFarTimesAreAnswered(t *testing.T) {
	t.Parallel()
	page := newPage(t, sample()...)
	for _, query := range []string{
		"until=9999-12-31T23:59:59Z", "since=0000-01-01T00:00:00Z", "since=9999-12-30T00:00:00Z&until=9999-12-31T23:59:59Z",
		"since=0000-01-01T00:00:00Z&until=9999-12-31T23:59:59Z", "since=0000-01-01T00:00:00Z&until=0000-01-02T00:00:00Z",
	} {
		var got view
		get(t, page, "api/view?"+query, 200, &got)
		if bars := len(got.Timeline.Bars); bars < 1 || bars > maxBars+1 {
			t.Errorf("%s: %d bars", query, bars)
		}
	}
	answer := httptest.NewRecorder()
	writeJSON(answer, 200, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
	if answer.Code != http.StatusInternalServerError || !strings.Contains(answer.Body.String(), `"error"`) {
		t.Errorf("got %d %s", answer.Code, answer.Body)
	}
}

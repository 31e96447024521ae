// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// named returns a review of the corpus.
func named(tb testing.TB, name string) []byte {
	tb.Helper()
	for _, c := range cases(tb) {
		if c.Name == name {
			return c.Review
		}
	}
	tb.Fatalf("the corpus has no %s", name)
	return nil
}

func TestMalformedInputIsAnsweredAndNeverAllowed(t *testing.T) {
	t.Parallel()
	sound := string(named(t, "role-verbs"))
	replaced := func(old, new string) string {
		changed := strings.Replace(sound, old, new, 1)
		if changed == sound {
			t.Fatalf("the review has no %s", old)
		}
		return changed
	}
	head, _, _ := strings.Cut(sound, `"operation"`)
	uid := uidOf(t, sound)
	for name, test := range map[string]struct {
		body   string
		status int
		uid    string
		user   string
	}{
		"nothing":                        {"", http.StatusBadRequest, "", ""},
		"no JSON":                        {"hello", http.StatusBadRequest, "", ""},
		"a list":                         {"[]", http.StatusBadRequest, "", ""},
		"an empty object":                {"{}", http.StatusBadRequest, "", ""},
		"a review without a request":     {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, http.StatusBadRequest, "", ""},
		"a review whose request is null": {`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}`, http.StatusBadRequest, "", ""},
		"a request without a uid":        {replaced(`"uid":"`+uid+`",`, ""), http.StatusBadRequest, "", "admin"},
		"another version":                {replaced("admission.k8s.io/v1", "admission.k8s.io/v2"), http.StatusOK, uid, "admin"},
		"another kind":                   {replaced("AdmissionReview", "TokenReview"), http.StatusOK, uid, "admin"},
		"a review that is cut off":       {sound[:len(sound)-10], http.StatusOK, uid, "admin"},
		"a review cut off in its head":   {head, http.StatusOK, uid, ""},
		"two reviews":                    {sound + sound, http.StatusOK, uid, "admin"},
		"groups that are not a list":     {replaced(`"groups":["system:masters","system:authenticated"]`, `"groups":7`), http.StatusOK, uid, "admin"},
		"text that is not UTF-8":         {replaced(`"apigw-ingress-clusterrole"`, "\"\xff\""), http.StatusOK, uid, "admin"},
		"an operation of its own":        {replaced(`"UPDATE"`, `"CONNECT"`), http.StatusOK, uid, "admin"},
		"a number as the name":           {replaced(`"name":"apigw-ingress-clusterrole"`, `"name":7`), http.StatusOK, uid, "admin"},
		"a number as the subresource":    {replaced(`"operation"`, `"subResource":7,"operation"`), http.StatusOK, uid, "admin"},
		"a list as the user's name":      {replaced(`"username":"admin"`, `"username":["admin"]`), http.StatusOK, uid, ""},
		"a string as the old object":     {replaced(`"oldObject":{`, `"oldObject":"x","was":{`), http.StatusOK, uid, "admin"},
		"a string as the resource":       {replaced(`"resource":{`, `"resource":"x","was":{`), http.StatusOK, uid, "admin"},
		"objects of null":                {replaced(`"object":{`, `"object":null,"was":{`), http.StatusOK, uid, "admin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			recorder := post(t, newHandler(t, &log, true), []byte(test.body))
			answer := answerOf(t, recorder)
			if recorder.Code != test.status || answer.Allowed || string(answer.UID) != test.uid {
				t.Errorf("got HTTP %d, allowed=%t, uid %q, want %d, denied, %q", recorder.Code, answer.Allowed, answer.UID, test.status, test.uid)
			}
			if answer.Result.Code != http.StatusForbidden || answer.AuditAnnotations["reason"] != "Unreadable" {
				t.Errorf("got code %d, reason %q, want 403, Unreadable", answer.Result.Code, answer.AuditAnnotations["reason"])
			}
			if user := logged(t, log.Bytes())["user"]; user != test.user {
				t.Errorf("logged user: got %q, want %q", user, test.user)
			}
		})
	}
}

func uidOf(t *testing.T, body string) string {
	t.Helper()
	request, err := Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return request.UID
}

// A deletion has no object. A value that is no object must not pass for an absent one.
func TestADeletionWithAnObjectThatIsNoneIsUnreadable(t *testing.T) {
	t.Parallel()
	body := strings.Replace(string(named(t, "delete-role")), `"object":null`, `"object":"x"`, 1)
	if answer := answerOf(t, post(t, newHandler(t, io.Discard, true), []byte(body))); answer.AuditAnnotations["reason"] != "Unreadable" {
		t.Errorf("got %v", answer.AuditAnnotations)
	}
}

// logged returns the one line that was logged.
func logged(t *testing.T, log []byte) map[string]any {
	t.Helper()
	var line map[string]any
	if err := json.Unmarshal(log, &line); err != nil {
		t.Fatalf("log %q is not one line of JSON: %v", log, err)
	}
	return line
}

// A review that is larger than any honest one is denied, answered and attributed from its head.
func TestOversizedReviewIsDeniedAndAttributed(t *testing.T) {
	t.Parallel()
	sound := string(named(t, "role-verbs"))
	large := strings.Replace(sound, `"object":{`, `"object":{"x":"`+strings.Repeat("<", MaxBytes)+`",`, 1)
	for name, body := range map[string]string{"the object is too large": large, "and it is cut off as well": large[:len(large)-5]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			answer := answerOf(t, post(t, newHandler(t, &log, false), []byte(body)))
			if answer.Allowed || string(answer.UID) != uidOf(t, sound) || answer.AuditAnnotations["reason"] != "TooLarge" {
				t.Errorf("got %v", answer)
			}
			line := logged(t, log.Bytes())
			if line["user"] != "admin" || line["name"] != "apigw-ingress-clusterrole" || line["reason"] != "TooLarge" {
				t.Errorf("logged %v", line)
			}
		})
	}
}

// cutOff is a body of which the server took the beginning only.
type cutOff struct {
	io.ReadCloser
	data []byte
	err  error
}

func (c cutOff) Received() ([]byte, error) { return c.data, c.err }

func TestAReviewWithoutRoomIsDeniedAndAttributed(t *testing.T) {
	t.Parallel()
	sound := string(named(t, "role-verbs"))
	head, _, _ := strings.Cut(sound, `"object":{`)
	for name, test := range map[string]struct {
		head   string
		status int
		user   string
	}{
		"its head was read":     {head, http.StatusOK, "admin"},
		"its head was not read": {"", http.StatusServiceUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path, cutOff{data: []byte(test.head), err: ErrOverloaded})
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			newHandler(t, &log, false).ServeHTTP(recorder, request)
			if recorder.Code != test.status {
				t.Fatalf("got HTTP %d, want %d", recorder.Code, test.status)
			}
			if line := logged(t, log.Bytes()); line["user"] != test.user || line["reason"] != "Overloaded" {
				t.Errorf("logged %v", line)
			}
			if test.status != http.StatusOK {
				if recorder.Header().Get("Retry-After") == "" {
					t.Error("the caller is not told to try again")
				}
				return
			}
			answer := answerOf(t, recorder)
			if answer.Allowed || string(answer.UID) != uidOf(t, sound) || answer.AuditAnnotations["reason"] != "Overloaded" {
				t.Errorf("got %v", answer)
			}
		})
	}
}

func TestOnlyAPostOfJSONIsAReview(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, contentType, encoding string
		want                          int
	}{
		"a GET":                     {http.MethodGet, "application/json", "", http.StatusMethodNotAllowed},
		"a form":                    {http.MethodPost, "application/x-www-form-urlencoded", "", http.StatusUnsupportedMediaType},
		"no content type":           {http.MethodPost, "", "", http.StatusUnsupportedMediaType},
		"JSON with a character set": {http.MethodPost, "application/json; charset=utf-8", "", http.StatusOK},
		"compressed JSON":           {http.MethodPost, "application/json", "gzip", http.StatusUnsupportedMediaType},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := httptest.NewRequestWithContext(t.Context(), test.method, Path, bytes.NewReader(named(t, "role-verbs")))
			request.Header.Set("Content-Type", test.contentType)
			request.Header.Set("Content-Encoding", test.encoding)
			recorder := httptest.NewRecorder()
			newHandler(t, io.Discard, false).ServeHTTP(recorder, request)
			if recorder.Code != test.want {
				t.Errorf("got %d, want %d", recorder.Code, test.want)
			}
		})
	}
}

// failingBody breaks off as the network does.
type failingBody struct{ io.Reader }

func (f failingBody) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("connection reset")
	}
	return n, err
}

func TestABodyThatBreaksOffIsDenied(t *testing.T) {
	t.Parallel()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Path, failingBody{bytes.NewReader(named(t, "role-put-unchanged"))})
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	newHandler(t, io.Discard, false).ServeHTTP(recorder, request)
	if answerOf(t, recorder).Allowed {
		t.Error("allowed")
	}
}

type failingLookup struct{}

func (failingLookup) Holds(context.Context, policy.Lookup) (bool, error) {
	return true, errors.New("the API server is down")
}

// Not known means deny, also where the look-up says yes and fails.
func TestAFailedLookupDeniesAndSaysWhy(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	handler := newHandler(t, &log, false)
	handler.Lookup = failingLookup{}
	if answerOf(t, post(t, handler, named(t, "delete-token-of-account-gone"))).Allowed {
		t.Error("allowed")
	}
	if got := logged(t, log.Bytes())["err"]; got != "the API server is down" {
		t.Errorf("logged err %q", got)
	}
}

func TestADenialIsOneLogLine(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	post(t, newHandler(t, &log, false), named(t, "role-verbs-and-resources"))
	line := logged(t, log.Bytes())
	delete(line, "time")
	want := map[string]any{
		"level": "WARN", "msg": "write denied", "requestUID": uidOf(t, string(named(t, "role-verbs-and-resources"))),
		"user": "admin", "operation": "UPDATE", "group": "rbac.authorization.k8s.io", "resource": "clusterroles",
		"namespace": "", "name": "apigw-ingress-clusterrole", "subresource": "", "dryRun": false,
		"decision": "deny", "reason": "ReservedUpdate", "changed": []any{"rules[0].verbs", "rules[1].resources"},
	}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestForeignTextIsBoundedInTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	body := strings.Replace(string(named(t, "role-verbs")), `"username":"admin"`, `"username":"`+strings.Repeat("u", 100_000)+`"`, 1)
	post(t, newHandler(t, &log, false), []byte(body))
	if log.Len() > 4096 {
		t.Errorf("the line has %d bytes", log.Len())
	}
}

func TestMetricsCount(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	handler := newHandler(t, io.Discard, false)
	handler.Metrics = NewMetrics(registry)
	for _, name := range []string{"role-verbs", "role-verbs", "delete-token", "role-put-unchanged", "unrelated-secret"} {
		post(t, handler, named(t, name))
	}
	post(t, handler, []byte("hello"))
	const want = `
		# HELP apigw_guardian_requests_total Admission reviews by decision (allow, deny), reason, and the reserved kind of resource ("" where none is concerned).
		# TYPE apigw_guardian_requests_total counter
		apigw_guardian_requests_total{decision="allow",reason="NoChange",resource="clusterroles"} 1
		apigw_guardian_requests_total{decision="allow",reason="NotReserved",resource=""} 1
		apigw_guardian_requests_total{decision="deny",reason="ReservedDelete",resource="secrets"} 1
		apigw_guardian_requests_total{decision="deny",reason="ReservedUpdate",resource="clusterroles"} 2
		apigw_guardian_requests_total{decision="deny",reason="Unreadable",resource=""} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "apigw_guardian_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestTheHintIsTheSecondLineOfADenial(t *testing.T) {
	t.Parallel()
	for _, hint := range []string{"", "See https://wiki.example/apigw"} {
		handler := newHandler(t, io.Discard, false)
		handler.Hint = hint
		lines := strings.Split(answerOf(t, post(t, handler, named(t, "role-verbs"))).Result.Message, "\n")
		if hint == "" && len(lines) != 1 || hint != "" && (len(lines) != 2 || lines[1] != hint) {
			t.Errorf("hint %q: got lines %q", hint, lines)
		}
	}
}

func TestObserveWarnsThePerson(t *testing.T) {
	t.Parallel()
	handler := newHandler(t, io.Discard, false)
	handler.Policy.Mode = policy.Observe
	answer := answerOf(t, post(t, handler, named(t, "role-verbs")))
	want := `apigw-guardian would deny this: ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: rules[2].verbs).`
	if !answer.Allowed || len(answer.Warnings) != 1 || answer.Warnings[0] != want {
		t.Errorf("got allowed=%t, warnings %q", answer.Allowed, answer.Warnings)
	}
}

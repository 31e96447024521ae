// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// kept holds the recorded events.
type kept struct{ events []audit.Event }

func (k *kept) Record(_ context.Context, event audit.Event) string {
	k.events = append(k.events, event)
	return "name"
}

func TestAnEventSaysWhetherItsCallerWasVerified(t *testing.T) {
	shown := []*x509.Certificate{{}}
	verified := tls.ConnectionState{PeerCertificates: shown, VerifiedChains: [][]*x509.Certificate{shown}}
	for name, test := range map[string]struct {
		asks       bool
		connection tls.ConnectionState
		want       v1alpha1.Caller
	}{
		"no caller is asked":            {false, tls.ConnectionState{}, ""},
		"a caller presents none":        {true, tls.ConnectionState{}, v1alpha1.CallerUnverified},
		"a caller presents a good one":  {true, verified, v1alpha1.CallerVerified},
		"a caller presents another one": {true, tls.ConnectionState{PeerCertificates: shown}, v1alpha1.CallerUnverified},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := &kept{}
			handler := newHandler(t, io.Discard, false)
			handler.Recorder, handler.AsksCallers = recorder, test.asks
			request := httptest.NewRequestWithContext(t.Context(), "POST", "https://guard"+Path, bytes.NewReader(named(t, "delete-role")))
			request.Header.Set("Content-Type", "application/json")
			request.TLS, request.RemoteAddr = &test.connection, "192.0.2.1:4444"
			handler.ServeHTTP(httptest.NewRecorder(), request)
			if len(recorder.events) != 1 || recorder.events[0].Caller != test.want || recorder.events[0].Peer != "192.0.2.1:4444" {
				t.Errorf("got %+v, want one event of caller %q", recorder.events, test.want)
			}
		})
	}
}

func TestADecisionWithAnOutcomeIsRecordedAndAnnotated(t *testing.T) {
	t.Parallel()
	role := v1alpha1.ObjectReference{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "apigw-ingress-clusterrole"}
	deletion := string(named(t, "delete-role"))
	without := func(text string) string {
		changed := strings.Replace(deletion, text, "", 1)
		if changed == deletion {
			t.Fatalf("the review has no %s", text)
		}
		return changed
	}
	denied := map[string]string{
		"decision": "deny", "operation": "DELETE", "outcome": "Denied", "reason": "ReservedDelete", "resource": role.String(),
	}
	recorded := maps.Clone(denied)
	recorded["record"] = "name"
	event := audit.Event{
		RequestUID: uidOf(t, deletion), Outcome: v1alpha1.Denied, Operation: "DELETE", Object: role, Reason: "ReservedDelete",
		ObjectUID: "81e00e47-7f3c-41ab-9824-576502f559b9",
		Message:   `ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be deleted.`,
		User:      v1alpha1.User{Name: "admin", UID: "admin", Groups: []string{"system:masters", "system:authenticated"}},
		Source:    v1alpha1.SourceGuard, Peer: "192.0.2.1:1234",
	}
	unread := event
	unread.ObjectUID = ""
	unread.Reason, unread.Message = "Unreadable", "The request cannot be judged and was denied, because it may concern a reserved resource."
	for name, test := range map[string]struct {
		body        string
		annotations map[string]string
		events      []audit.Event
	}{
		"a denial": {deletion, recorded, []audit.Event{event}},
		"an unreadable review, which names no reserved resource": {
			deletion[:len(deletion)-5],
			map[string]string{"decision": "deny", "operation": "DELETE", "outcome": "Denied", "reason": "Unreadable", "record": "name"},
			[]audit.Event{unread},
		},
		"a dry run leaves no record": {strings.Replace(deletion, `"dryRun":false`, `"dryRun":true`, 1), denied, nil},
		"a review without a uid leaves no record": {
			without(`"uid":"` + uidOf(t, deletion) + `",`),
			map[string]string{"decision": "deny", "operation": "DELETE", "outcome": "Denied", "reason": "Unreadable"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recorder := &kept{}
			handler := newHandler(t, io.Discard, false)
			handler.Recorder = recorder
			answer := answerOf(t, post(t, handler, []byte(test.body)))
			if diff := cmp.Diff(test.annotations, answer.AuditAnnotations); diff != "" {
				t.Errorf("annotations (-want +got)\n%s", diff)
			}
			options := cmp.Options{cmpopts.IgnoreFields(audit.Event{}, "Time"), cmpopts.IgnoreUnexported(audit.Event{})}
			if diff := cmp.Diff(test.events, recorder.events, options); diff != "" {
				t.Errorf("events (-want +got)\n%s", diff)
			}
		})
	}
}

func TestExtraOfTheUserIsRecordedAndLoggedWithoutCredentials(t *testing.T) {
	t.Parallel()
	const groups = `"groups":["system:masters","system:authenticated"]`
	body := strings.Replace(string(named(t, "delete-role")), groups,
		groups+`,"extra":{"sessionname":["alice@corp"],"access_token":["s3cr3t"]}`, 1)
	for keys, want := range map[string]map[string][]string{
		"*":  {"sessionname": {"alice@corp"}},
		"":   nil,
		"no": nil,
	} {
		var log bytes.Buffer
		recorder := &kept{}
		handler := newHandler(t, &log, false)
		handler.Recorder, handler.ExtraKeys = recorder, []string{keys}
		post(t, handler, []byte(body))
		if diff := cmp.Diff(want, recorder.events[0].User.Extra); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", keys, diff)
		}
		if got := log.String(); strings.Contains(got, "alice@corp") != (want != nil) || strings.Contains(got, "s3cr3t") {
			t.Errorf("%q: the log has %s", keys, got)
		}
	}
	if got := answerOf(t, post(t, newHandler(t, io.Discard, false), []byte(strings.Replace(body, `["alice@corp"]`, `7`, 1)))); got.Allowed {
		t.Error("a review with an unreadable extra is allowed")
	}
}

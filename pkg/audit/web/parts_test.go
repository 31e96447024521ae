// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func TestACommandInAnAdviceIsAPart(t *testing.T) {
	t.Parallel()
	for advice, want := range map[string][]string{
		"":                                 nil,
		"Nothing to do.":                   nil,
		"See: apigw-guardian status":       {"apigw-guardian status"},
		"See: apigw-guardian status. With": {"apigw-guardian status"},
		"(apigw-guardian status), repair it (apigw-guardian authorize --repair), and":        {"apigw-guardian status", "apigw-guardian authorize --repair"},
		"See: kubectl -n a get pods --field-selector 'spec.x=a. b) c'. Take":                 {"kubectl -n a get pods --field-selector 'spec.x=a. b) c'"},
		"See: apigw-guardian audit list --by-user 'o'\\''brien, x'":                          {`apigw-guardian audit list --by-user 'o'\''brien, x'`},
		"See: apigw-guardian audit list --by-user alice@example.com":                         {"apigw-guardian audit list --by-user alice@example.com"},
		"See: apigw-guardian audit list --resource clusterroles.rbac.authorization.k8s.io/a": {"apigw-guardian audit list --resource clusterroles.rbac.authorization.k8s.io/a"},
	} {
		var got []string
		var all strings.Builder
		for _, part := range partsOf(advice) {
			all.WriteString(part.Text)
			if part.Command {
				got = append(got, part.Text)
			}
		}
		if !slices.Equal(got, want) || all.String() != advice {
			t.Errorf("%s: got %q, want %q", advice, got, want)
		}
	}
}

// Every advice with a command has it as a part.
func TestEveryAdviceHasItsCommand(t *testing.T) {
	t.Parallel()
	for _, outcome := range v1alpha1.Outcomes() {
		advice := audit.Advice(&v1alpha1.AuditRecordSpec{Outcome: outcome, Reason: "ReservedDelete", User: v1alpha1.User{Name: "a b"}, Resource: "secrets/a/b"})
		commands := 0
		for _, part := range partsOf(advice) {
			if part.Command {
				commands++
			}
		}
		if want := strings.Count(advice, "apigw-guardian "); commands != want {
			t.Errorf("%s: %d commands, want %d in %q", outcome, commands, want, advice)
		}
	}
}

func TestThePageLearnsWhetherTheGuardRuns(t *testing.T) {
	t.Parallel()
	feed := NewFeed()
	before, changed := feed.signal()
	feed.Source(0).Guarded(Guard{State: GuardDown, Text: "none"})
	<-changed
	after, _ := feed.signal()
	if before.Guard.State != "" || after.Guard.State != GuardDown || feed.snapshot().signal.Guard.Text != "none" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	feed.Source(0).Guarded(Guard{State: GuardDown, Text: "none"})
	if again, _ := feed.signal(); again.Revision != after.Revision {
		t.Error("the same state is news")
	}
}

func TestThePageFindsAResourceAsItsProgramDoes(t *testing.T) {
	t.Parallel()
	feed := NewFeed()
	feed.Source(0).Changed(fact(v1alpha1.Denied, "UPDATE", "serviceaccounts/a/b", "alice", 1))
	page := New(feed, "c")
	page.FindResource = func(filter *audit.Filter) {
		if filter.Resource == "sa/b" {
			filter.Resource, filter.Object = "", v1alpha1.ObjectReference{Resource: "serviceaccounts", Name: "b"}
		}
	}
	for query, want := range map[string]int{"resource=sa/b": 1, "resource=sa/c": 0, "": 1} {
		request := httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+page.Path()+"api/view?"+query, nil)
		answer := httptest.NewRecorder()
		page.ServeHTTP(answer, request)
		var got view
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || got.Records != want {
			t.Errorf("%q: %d records, %v, want %d", query, got.Records, err, want)
		}
	}
}

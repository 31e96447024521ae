// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// pagesOf answers the requests of a list one after the other.
func pagesOf(t *testing.T, answers ...string) *Store {
	t.Helper()
	next := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := r.URL.Query().Get("continue"); next >= len(answers) || (token == "") != (next == 0) {
			http.Error(w, "unexpected "+r.URL.String(), http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(answers[next]))
		next++
	}))
	t.Cleanup(server.Close)
	s, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pageOf(t *testing.T, next string, users ...string) string {
	t.Helper()
	items := []string{}
	for _, user := range users {
		item, err := json.Marshal(denied(user, 1))
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, string(item))
	}
	return fmt.Sprintf(`{"kind":"AuditRecordList","metadata":{"continue":%q},"items":[%s]}`, next, strings.Join(items, ","))
}

func TestListReadsAllPages(t *testing.T) {
	s := pagesOf(t, pageOf(t, "2", "jane", "eve"), pageOf(t, "3"), pageOf(t, "", "jane"))
	records, err := s.List(t.Context(), audit.Filter{User: "jane"})
	if err != nil || len(records) != 2 {
		t.Errorf("%d records, %v: want 2", len(records), err)
	}
	if scanned, err := pagesOf(t, pageOf(t, "2", "a", "b", "c"), pageOf(t, "", "d")).scan(t.Context(), 2); err != nil || len(scanned) != 2 {
		t.Errorf("%d scanned, %v: want 2", len(scanned), err)
	}
}

func TestListReturnsErrors(t *testing.T) {
	for name, test := range map[string]struct {
		answers []string
		want    string
	}{
		"no list":                {[]string{`{"kind":"Status"}`}, errNoList.Error()},
		"a record that is none":  {[]string{`{"items":[{"spec":1}]}`}, "parse a record"},
		"a failing second page":  {[]string{pageOf(t, "2", "jane")}, "list audit records"},
		"a failing first page":   {nil, "list audit records"},
		"a text that is no JSON": {[]string{"<html>"}, errNoList.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			records, err := pagesOf(t, test.answers...).List(t.Context(), audit.Filter{})
			if err == nil || !strings.Contains(err.Error(), test.want) || records != nil {
				t.Errorf("%d records, %v", len(records), err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pagesOf(t).List(ctx, audit.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestExtraIsKeptUnlessItLooksLikeACredential(t *testing.T) {
	t.Parallel()
	for key, kept := range map[string]bool{
		"sessionname": true, "sessionName": true, "arn": true, "canonicalArn": true, "accessKeyId": true, "principalId": true,
		"username": true, "principalid": true, "requesttokenid": true, "example.com/email": true, "scopes": true, "iat": true,
		"authentication.kubernetes.io/credential-id": true, "authentication.kubernetes.io/pod-name": true, "user.info/x": true,
		"token": false, "id_token": false, "idToken": false, "access-token": false, "refreshToken": false, "client_secret": false,
		"password": false, "Authorization": false, "cookie": false, "sessionid": false, "apikey": false, "x-api-key": false,
		"private_key": false, "saml": false, "assertion": false, "secretAccessKey": false, "example.com/bearer": false, "code": false,
	} {
		if got := KeptExtra(Extra{key: {"x"}}, []string{AllExtra}); (len(got) == 1) != kept {
			t.Errorf("%s: kept %t, want %t", key, !kept, kept)
		}
	}
	for value, kept := range map[string]bool{
		"alice@example.com": true, "arn:aws:sts::1:assumed-role/admin/alice": true, "": true, "https://example.com/alice": true,
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln": false, "Bearer abc": false, "-----BEGIN PRIVATE KEY-----": false,
		"https://alice:secret@example.com/": false,
	} {
		if got := KeptExtra(Extra{"note": {value}}, []string{AllExtra, "note"}); (len(got) == 1) != kept {
			t.Errorf("%q: kept %t, want %t", value, !kept, kept)
		}
	}
}

func TestExtraIsKeptAsConfigured(t *testing.T) {
	t.Parallel()
	extra := Extra{"sessionName": {"b", "a"}, "arn": {"x"}, "token": {"t-1"}}
	for name, test := range map[string]struct {
		keys []string
		want Extra
	}{
		"nothing":                 {nil, nil},
		"all":                     {[]string{"*"}, Extra{"sessionName": {"a", "b"}, "arn": {"x"}}},
		"one, in another case":    {[]string{"sessionname"}, Extra{"sessionName": {"a", "b"}}},
		"all, and one on purpose": {[]string{"*", "token"}, Extra{"sessionName": {"a", "b"}, "arn": {"x"}, "token": {"t-1"}}},
	} {
		if diff := cmp.Diff(test.want, KeptExtra(extra, test.keys)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestExtraTellsEventsApart(t *testing.T) {
	t.Parallel()
	event := func(extra Extra) *Event { return &Event{User: v1alpha1.User{Name: "kubernetes-admin", Extra: extra}} }
	alice, bob := event(Extra{"sessionname": {"alice@corp"}}), event(Extra{"sessionname": {"bob@corp"}})
	if alice.Name() == bob.Name() || Agree(alice.Record("r", 1), bob.Record("r", 1)) {
		t.Error("alice and bob share a record")
	}
	if event(nil).Name() != event(Extra{}).Name() || event(nil).Name() == alice.Name() {
		t.Error("no extra: the record's name differs from that of empty extra, or equals alice's")
	}
	if a, b := event(Extra{"a": {"b", "c"}}), event(Extra{"a": {"b"}, "c": nil}); a.Name() == b.Name() {
		t.Error("one key's values and two keys share a record")
	}
	if got := UserName(&alice.Record("r", 1).Spec.User); got != "kubernetes-admin (alice@corp)" {
		t.Errorf("got %q", got)
	}
	record := alice.Record("r", 1)
	if !(Filter{User: "alice"}).Match(record) || !(Filter{Text: "alice@corp"}).Match(record) || (Filter{User: "bob"}).Match(record) {
		t.Error("the filter does not find the person")
	}
}

func TestExtraOfARecordIsBoundedAndPrintable(t *testing.T) {
	t.Parallel()
	extra := Extra{"a\x1b[31m": {"alice\x1b[31m\u202e"}}
	for i := range 100 {
		extra[fmt.Sprintf("b%03d", i)] = slices.Repeat([]string{strings.Repeat("x", 5000)}, 100)
	}
	got := (&Event{User: v1alpha1.User{Name: "u", Extra: extra}}).Record("r", 1).Spec.User.Extra
	if len(got) != maxExtraKeys || len(got["b000"]) != maxExtraValues || len(got["b000"][0]) > maxName {
		t.Errorf("got %d keys, %d values of %d bytes", len(got), len(got["b000"]), len(got["b000"][0]))
	}
	if diff := cmp.Diff([]string{"alice\uFFFD[31m\uFFFD"}, got["a\uFFFD[31m"]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

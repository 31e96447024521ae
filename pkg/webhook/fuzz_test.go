// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// judge is what both fuzzers hold the handler to. Nothing panics; the same bytes get the same answer; an answer bears the
// uid of its request and no value of a Secret; and no write that an independent reading calls forbidden is allowed.
func judge(t *testing.T, handler *Handler, body []byte) {
	t.Helper()
	if hasTwins(rawjson.Truncated(body)) {
		t.Skip("of equal keys, which the API server sends none of, encoding/json takes the last and the guard the first")
	}
	first, second := post(t, handler, body), post(t, handler, body)
	if !bytes.Equal(first.Body.Bytes(), second.Body.Bytes()) {
		t.Errorf("two answers:\n%s\n%s", first.Body, second.Body)
	}
	answer := answerOf(t, first)
	if !answer.Allowed {
		return
	}
	request, err := readIndependently(body)
	if err != nil {
		t.Fatalf("allowed what encoding/json cannot read: %v", err)
	}
	if string(answer.UID) != request.UID {
		t.Errorf("uid: got %q, want %q", answer.UID, request.UID)
	}
	if why := forbidden(handler.Policy.Set, request); why != "" {
		t.Errorf("allowed for %s, but: %s", answer.AuditAnnotations["reason"], why)
	}
}

// FuzzHandler feeds foreign bytes.
func FuzzHandler(f *testing.F) {
	for _, c := range cases(f) {
		f.Add(c.Review)
	}
	handler := newHandler(f, io.Discard, false)
	f.Fuzz(func(t *testing.T, body []byte) { judge(t, handler, body) })
}

// FuzzDecision puts one foreign value, or one of another review, in the place of any value of a real review, and so gets
// further into the decision than bytes at random do.
func FuzzDecision(f *testing.F) {
	cases := cases(f)
	for i := range cases {
		f.Add(uint8(i), uint16(40), uint8(i+1), uint16(40), "")
		f.Add(uint8(i), uint16(50), uint8(0), uint16(0), `{"a":["b"]}`)
	}
	handler := newHandler(f, io.Discard, false)
	f.Fuzz(func(t *testing.T, target uint8, at uint16, source uint8, from uint16, foreign string) {
		body := cases[int(target)%len(cases)].Review
		spans := valuesOf(body)
		span := spans[int(at)%len(spans)]
		value := []byte(foreign)
		if foreign == "" {
			other := cases[int(source)%len(cases)].Review
			others := valuesOf(other)
			origin := others[int(from)%len(others)]
			value = other[origin.start:origin.end]
		}
		judge(t, handler, slices.Concat(body[:span.start], value, body[span.end:]))
	})
}

func hasTwins(value rawjson.Value) bool {
	seen := map[string]bool{}
	for key, member := range value.Members() {
		if seen[string(key)] || hasTwins(member) {
			return true
		}
		seen[string(key)] = true
	}
	for element := range value.Elements() {
		if hasTwins(element) {
			return true
		}
	}
	return false
}

// span is where a value stands in a document.
type span struct{ start, end int }

// valuesOf returns the places of all values of a document.
func valuesOf(document []byte) []span {
	spans := []span{{0, len(document)}}
	var walk func(value rawjson.Value)
	walk = func(value rawjson.Value) {
		start := cap(document) - cap(value) // both are slices of one array
		spans = append(spans, span{start, start + len(value)})
		for _, member := range value.Members() {
			walk(member)
		}
		for element := range value.Elements() {
			walk(element)
		}
	}
	walk(rawjson.Truncated(document))
	return spans
}

// The judge must be able to find something: each forbidden review of the corpus, were it allowed, would be called so.
func TestTheOracleKnowsWhatIsForbidden(t *testing.T) {
	t.Parallel()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, c := range cases(t) {
		request, err := readIndependently(c.Review)
		if err != nil {
			t.Fatal(err)
		}
		denied := strings.Contains(string(c.Answer), `"decision": "deny"`)
		why := forbidden(set, request)
		if why != "" && !denied && !strings.HasSuffix(c.Name, "-gone") { // these rest on a fact, which the oracle does not know
			t.Errorf("%s is allowed, and the oracle says: %s", c.Name, why)
		}
		if why != "" {
			found++
		}
	}
	if found < 25 {
		t.Errorf("the oracle calls only %d of the corpus forbidden", found)
	}
}

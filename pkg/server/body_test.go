// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// large is the size of a body that has to wait while another one of that size is on its way.
const large = 6 << 20

// telling answers with the length of the body that it was given and the reason why that is not all.
func telling(w http.ResponseWriter, r *http.Request) {
	body, ok := r.Body.(webhook.Received)
	if !ok {
		http.Error(w, "the body is not in memory", http.StatusInternalServerError)
		return
	}
	data, err := body.Received()
	_, _ = fmt.Fprintf(w, "%d bytes, too large %t, overloaded %t, failed %t", len(data), errors.Is(err, webhook.ErrTooLarge),
		errors.Is(err, webhook.ErrOverloaded), err != nil)
}

func whole(n int) string {
	return fmt.Sprintf("%d bytes, too large false, overloaded false, failed false", n)
}

const (
	tooLarge   = "16384 bytes, too large true, overloaded false, failed true"
	overloaded = "16384 bytes, too large false, overloaded true, failed true"
)

// reader hides the length of a body, so that it is sent in chunks.
type reader struct{ io.Reader }

// send posts n bytes, in chunks if they are to be, and returns what telling said.
func (h *harness) send(t *testing.T, n int, chunked bool) string {
	t.Helper()
	var body io.Reader = strings.NewReader(strings.Repeat("x", n))
	if chunked {
		body = reader{body}
	}
	resp, err := h.client(t).Post("https://"+h.Addr().String()+"/review", "application/json", body)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// holdOpen posts all of a body but its end.
func (h *harness) holdOpen(t *testing.T, n int) {
	t.Helper()
	_, err := fmt.Fprintf(h.dial(t), "POST /review HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", n, strings.Repeat("x", n-1))
	if err != nil {
		t.Fatal(err)
	}
}

// Who asks for what stands ahead in a review. What is refused is read to its end: else the API server fails to send it, and
// never sees the answer.
func TestAHandlerGetsTheBodyOrItsHeadAndTheReason(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(telling))
	const most = webhook.MaxBytes
	for name, tc := range map[string]struct {
		bytes   int
		chunked bool
		want    string
	}{
		"none":                         {0, false, whole(0)},
		"a small one":                  {1000, false, whole(1000)},
		"a small one in chunks":        {1000, true, whole(1000)},
		"a large one":                  {large, false, whole(large)},
		"a large one in chunks":        {large, true, whole(large)},
		"the largest one":              {most, false, whole(most)},
		"the largest one in chunks":    {most, true, whole(most)},
		"one that is too large":        {most + 1, false, tooLarge},
		"one too large, in chunks":     {most + 1, true, tooLarge},
		"one that is far too large":    {2 * most, false, tooLarge},
		"one far too large, in chunks": {2 * most, true, tooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if got := h.send(t, tc.bytes, tc.chunked); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestABodyThatIsHeldOpenMakesRoomForAnother(t *testing.T) {
	for name, chunked := range map[string]bool{"of known length": false, "in chunks": true} {
		t.Run(name, func(t *testing.T) {
			h := start(t, limits{inFlight: 1}, http.HandlerFunc(telling))
			h.holdOpen(t, large)
			h.holdOpen(t, large)
			if got, want := h.send(t, large, chunked), whole(large); got != want {
				t.Errorf("a large one: got %q, want %q", got, want)
			}
			if got, want := h.send(t, 1000, chunked), whole(1000); got != want {
				t.Errorf("a small one: got %q, want %q", got, want)
			}
		})
	}
}

// The first body is whole, so that it is not cut, and stays in memory until it is answered.
func TestABodyWithoutRoomIsRefusedAndASmallOneIsNot(t *testing.T) {
	entered, gate := make(chan struct{}), make(chan struct{})
	h := start(t, limits{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "first" {
			close(entered)
			<-gate
		}
		telling(w, r)
	}))
	first := make(chan reply, 1)
	go func() { first <- h.post(h.client(t), "?first", strings.Repeat("x", large)) }()
	await(t, entered, "the first body")
	for name, tc := range map[string]struct {
		bytes   int
		chunked bool
		want    string
	}{
		"a large one":           {large, false, overloaded},
		"a large one in chunks": {large, true, overloaded},
		"a small one":           {1000, false, whole(1000)},
		"a small one in chunks": {1000, true, whole(1000)},
	} {
		if got := h.send(t, tc.bytes, tc.chunked); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	close(gate)
	if got := await(t, first, "the first answer"); got.body != whole(large) {
		t.Errorf("the first one: got %+v", got)
	}
	if got, want := h.send(t, large, false), whole(large); got != want {
		t.Errorf("after the first one: got %q, want %q", got, want)
	}
}

func TestTrailersAreRefused(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(telling))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+h.Addr().String()+"/review", reader{strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	request.Trailer = http.Header{"A": {"b"}}
	resp, err := h.client(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400", resp.StatusCode)
	}
}

// What follows a request before its answer would be kept unread, or read without a bound: the connection ends.
func TestARequestThatFollowsBeforeTheAnswerIsNotServed(t *testing.T) {
	h := start(t, limits{}, http.HandlerFunc(telling))
	conn := h.dial(t)
	const request = "POST /review HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
	if _, err := io.WriteString(conn, request+request); err != nil {
		t.Fatal(err)
	}
	answers, err := io.ReadAll(conn)
	if isTimeout(err) {
		t.Fatal(err)
	}
	if got := strings.Count(string(answers), whole(2)); got != 1 {
		t.Errorf("%d answers, want 1", got)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

var updateAnswers = flag.Bool("update", false, "write the answers of the corpus anew; read the difference before you commit it")

type lookup bool

func (l lookup) Holds(context.Context, policy.Lookup) (bool, error) { return bool(l), nil }

// asCaptured answers as the cluster did in which a review of the corpus was captured.
type asCaptured struct{ corpus.Case }

func (a asCaptured) Holds(_ context.Context, lookup policy.Lookup) (bool, error) {
	if lookup.ForRecord {
		return a.IsLive(), nil
	}
	return a.Case.Holds(), nil
}

func newHandler(tb testing.TB, log io.Writer, holds bool) *Handler {
	tb.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		tb.Fatal(err)
	}
	return &Handler{
		Policy:  &policy.Policy{Set: set, Writers: policy.DefaultWriters()},
		Lookup:  lookup(holds),
		Log:     slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: NewMetrics(prometheus.NewRegistry()),
	}
}

func post(tb testing.TB, handler http.Handler, body []byte) *httptest.ResponseRecorder {
	tb.Helper()
	request := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, Path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder
}

func cases(tb testing.TB) []corpus.Case {
	tb.Helper()
	cases, err := corpus.Cases()
	if err != nil {
		tb.Fatal(err)
	}
	if len(cases) == 0 {
		tb.Fatal("the corpus is empty")
	}
	return cases
}

func TestAnswersOfTheCorpus(t *testing.T) {
	t.Parallel()
	for _, c := range cases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			handler := newHandler(t, &log, c.Holds())
			handler.Lookup = asCaptured{c}
			recorder := post(t, handler, c.Review)
			if recorder.Code != http.StatusOK {
				t.Errorf("HTTP status: got %d, want 200", recorder.Code)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, recorder.Body.Bytes(), "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			if *updateAnswers {
				update(t, c.Name, got.Bytes())
				return
			}
			if diff := cmp.Diff(string(c.Answer), got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for where, text := range map[string]string{"log": log.String(), "answer": got.String()} {
				if strings.Contains(text, corpus.Canary) || strings.Contains(text, "Y2FuYXJ5") {
					t.Errorf("the %s holds a value of the Secret: %s", where, text)
				}
			}
		})
	}
}

func update(t *testing.T, name string, answer []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("../../corpus/answers", name+".json"), answer, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNoAnswerWithoutItsReview(t *testing.T) {
	t.Parallel()
	orphans, err := corpus.Orphans()
	if err != nil {
		t.Fatal(err)
	}
	if len(orphans) > 0 {
		t.Errorf("remove these answers to reviews that are not there: %v", orphans)
	}
}

func answerOf(t *testing.T, recorder *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &review); err != nil {
		t.Fatalf("answer %q: %v", recorder.Body, err)
	}
	if review.Response == nil {
		t.Fatalf("answer %q has no response", recorder.Body)
	}
	return review.Response
}

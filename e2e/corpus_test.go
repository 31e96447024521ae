// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// answers returns what the corpus says that the guard answers to each scenario.
func answers(t *testing.T) map[string]*admissionv1.AdmissionResponse {
	t.Helper()
	cases, err := corpus.Cases()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*admissionv1.AdmissionResponse{}
	for _, c := range cases {
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(c.Answer, &review); err != nil || review.Response == nil {
			t.Fatalf("%s: no answer in the corpus: %v", c.Name, err)
		}
		byName[c.Name] = review.Response
	}
	return byName
}

// The corpus is judged once more, by a live API server: it must send each review, and take the answer for what it says.
func TestScenariosOfTheCorpus(t *testing.T) {
	harness.Take(t)
	world, expected := harness.World(t), answers(t)
	harness.StartGuard(t)
	scenarios := scenario.All()
	if len(scenarios) != len(expected) {
		t.Errorf("%d scenarios, and %d reviews in the corpus: run make corpus", len(scenarios), len(expected))
	}
	for _, s := range scenarios {
		t.Run(s.Name, func(t *testing.T) {
			if err := world.Play(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			write := s.Write(world)
			if s.Unasked {
				write = write.DryRun()
			}
			answer, err := world.Guarded.Do(t.Context(), write)
			if err != nil {
				t.Fatal(err)
			}
			want := expected[s.Name]
			if s.Unasked {
				requireUnasked(t, answer)
			} else {
				requireAnswer(t, answer, want)
				requireRecord(t, answer, want)
			}
			if err := world.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func requireUnasked(t *testing.T, answer scenario.Answer) {
	t.Helper()
	if answer.Code >= http.StatusBadRequest {
		t.Errorf("got %d %s, want success", answer.Code, answer.Body)
	}
	if annotations := guardAnnotations(t, answer); len(annotations) > 0 {
		t.Errorf("the guard was asked: %v", annotations)
	}
}

// requireAnswer compares verdict, message and audit annotations. A generated name is another one each time.
func requireAnswer(t *testing.T, answer scenario.Answer, want *admissionv1.AdmissionResponse) {
	t.Helper()
	if diff := cmp.Diff(withoutName(want.AuditAnnotations), withoutName(guardAnnotations(t, answer))); diff != "" {
		t.Errorf("audit annotations (-want +got)\n%s", diff)
	}
	if want.Allowed {
		if answer.Code == http.StatusForbidden || answer.Code >= http.StatusInternalServerError {
			t.Errorf("got %d %s, want it allowed", answer.Code, answer.Body)
		}
		return
	}
	status := answer.Status()
	if status.Code != http.StatusForbidden || status.Reason != metav1.StatusReasonForbidden {
		t.Errorf("got %d %s %s, want 403 Forbidden", status.Code, status.Reason, status.Message)
	}
	_, message, _ := strings.Cut(status.Message, " denied the request: ")
	sentence, hint, _ := strings.Cut(message, "\n")
	if want.AuditAnnotations["reason"] != "TokenMint" && policy.SentenceOf(sentence) != policy.SentenceOf(want.Result.Message) {
		t.Errorf("message: got %q, want %q", sentence, want.Result.Message)
	}
	annotations := guardAnnotations(t, answer)
	if record := annotations["record"]; record == "" || !strings.HasSuffix(sentence, "record "+record+"]") {
		t.Errorf("message %q does not end in the record %q", sentence, record)
	}
	if namespace := v1alpha1.ParseObjectReference(annotations["resource"]).Namespace; !strings.Contains(sentence, "[namespace "+namespace) && namespace != "" {
		t.Errorf("message %q does not name the namespace", sentence)
	}
	if isReserved := want.AuditAnnotations["resource"] != ""; strings.Contains(hint, "apigw-guardian unlock --reason ") != isReserved {
		t.Errorf("the second line is %q, want a command: %t", hint, isReserved)
	}
	if !strings.Contains(status.Message, `.apigw-guardian.io" denied the request: `) {
		t.Errorf("message %q does not name our webhook", status.Message)
	}
}

// requireRecord wants a denial, a restoration and a deletion by the control plane recorded under the name that the audit log has, and nothing else.
func requireRecord(t *testing.T, answer scenario.Answer, want *admissionv1.AdmissionResponse) {
	t.Helper()
	name, has := guardAnnotations(t, answer)["record"]
	isRecorded := !want.Allowed || slices.Contains([]string{"Restoration", "SystemDelete"}, want.AuditAnnotations["reason"])
	if has != isRecorded {
		t.Errorf("the record is %q, want one: %t", name, isRecorded)
	}
	if !isRecorded {
		return
	}
	store := harness.Records(t)
	harness.Eventually(t, "the record is stored", func() (bool, any) {
		record, err := store.Get(t.Context(), name)
		return err == nil && record.Spec.Reason == want.AuditAnnotations["reason"], err
	})
}

// withoutName leaves out what is another one each time.
func withoutName(annotations map[string]string) map[string]string {
	without := map[string]string{}
	for key, value := range annotations {
		switch key {
		case "record":
			continue
		case "resource":
			value, _, _ = strings.Cut(value, "/")
		}
		without[key] = value
	}
	return without
}

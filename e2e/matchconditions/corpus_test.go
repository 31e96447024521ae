// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// The match conditions skip what does not concern a reserved resource, all of it, and nothing that the policy would deny.
func TestConditionsAgreeWithThePolicyOverTheCorpus(t *testing.T) {
	cases, err := corpus.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(c.Review, &review); err != nil {
			t.Fatal(err)
		}
		reason := judged(t, review.Request)
		for name, server := range servers {
			t.Run(c.Name+" on "+name, func(t *testing.T) {
				skipped := server.skips(t, review.Request)
				if skipped && !needsNoGuard(reason) {
					t.Errorf("skipped, and the policy says %s", reason)
				}
				if !skipped && reason == policy.NotReserved {
					t.Errorf("the guard sees what is not reserved")
				}
			})
		}
	}
}

func TestConditionsCompileOnEverySupportedRelease(t *testing.T) {
	for name, server := range servers {
		for _, resource := range []string{"secrets", "serviceaccounts", "clusterroles", "clusterrolebindings"} {
			t.Run(resource+" on "+name, func(t *testing.T) { server.conditions(t, webhookOf(t, resource)) })
		}
	}
}

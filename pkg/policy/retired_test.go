// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
)

func TestARetiredResourceCannotBeRestored(t *testing.T) {
	t.Parallel()
	asked := 0
	for _, c := range cases(t) {
		reviewed := builtInPolicy(t).Review(decode(t, c.Review))
		var retired, known []bool
		asks := false
		for _, lookup := range reviewed.Lookups() {
			asks = asks || lookup.Subject == NotRetired
			retired, known = append(retired, lookup.Subject != NotRetired), append(known, true)
		}
		if wants := reviewed.permit.reason == Restoration && reviewed.write.Operation == admissionv1.Create; asks != wants {
			t.Errorf("%s: asks whether the reservation is retired: %t, want %t", c.Name, asks, wants)
		}
		if !asks {
			continue
		}
		asked++
		if got := reviewed.Decide(Facts{Holds: known}); !got.Allowed || got.Reason != Restoration {
			t.Errorf("%s: not retired: got %+v", c.Name, got)
		}
		got := reviewed.Decide(Facts{Holds: retired})
		if got.Allowed || got.Reason != ReservedCreate || !strings.Contains(got.Sentence(), "authorize --again") {
			t.Errorf("%s: retired: got %+v: %s", c.Name, got, got.Sentence())
		}
	}
	if asked != 4 {
		t.Errorf("%d reviews ask whether the reservation is retired, want one for each kind", asked)
	}
}

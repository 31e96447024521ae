// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestAFilterSelectsTheWritesUnderAnUnlock(t *testing.T) {
	t.Parallel()
	record := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Unlock: "unlock-x7k2p", Justification: "ticket 4711"}}
	for name, test := range map[string]struct {
		filter Filter
		want   bool
	}{
		"no filter":                    {Filter{}, true},
		"its unlock":                   {Filter{Unlock: "unlock-x7k2p"}, true},
		"another unlock":               {Filter{Unlock: "unlock-c4m9q"}, false},
		"a part of its unlock":         {Filter{Unlock: "unlock-"}, false},
		"its unlock in upper case":     {Filter{Unlock: "UNLOCK-X7K2P"}, false},
		"a text of the unlock's name":  {Filter{Text: "X7K2"}, true},
		"a text of its justification":  {Filter{Text: "4711"}, true},
		"a text that it does not have": {Filter{Text: "4712"}, false},
	} {
		if got := test.filter.Match(record); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
	if (Filter{Unlock: "unlock-x7k2p"}).Match(&v1alpha1.AuditRecord{}) {
		t.Error("a record without an unlock matches")
	}
}

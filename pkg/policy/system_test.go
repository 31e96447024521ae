// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import "testing"

// e2e/matchconditions compares the same rule with the API server's CEL.
func TestDatePattern(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"2026-11-27": true, "2026-01-31": true, "2028-02-29": true, "2026-12-31": true,
		"": false, "junk": false, "2026-11-31": false, "2026-02-30": false, "2026-00-10": false, "2026-13-01": false,
		"2026-11-00": false, "2026-11-27" + " ": false, "20261127": false, "-026-11-27": false, "2026-1a-01": false,
	} {
		if got := dateForm.MatchString(text); got != want {
			t.Errorf("%q: got %t, want %t", text, got, want)
		}
	}
}

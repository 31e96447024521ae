// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestJudgmentsAtTheLimits(t *testing.T) {
	t.Parallel()
	unguarded := []string{"Unguarded Unguarded UPDATE " + role + " GuardNotAsked alice"}
	for name, test := range map[string]struct {
		edits []edit
		want  []string
	}{
		"the last code of a success":       {[]edit{code(299, "")}, unguarded},
		"the first code above":             {[]edit{code(300, "")}, nil},
		"a subresource that writes spec":   {[]edit{{"objectRef>subresource": "scale"}}, unguarded},
		"a subresource that does not":      {[]edit{{"objectRef>subresource": "status"}}, nil},
		"no code at all, so not a success": {[]edit{{"responseStatus": nil}}, nil},
	} {
		if diff := gocmp.Diff(test.want, told(t, builtIn(t), line(t, test.edits...))); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
	}
}

// The imported record stands beside the guard's own, and counts only what that lacks.
func TestAnImportedRecordCountsWhatTheGuardsLacks(t *testing.T) {
	t.Parallel()
	var lines [][]byte
	for _, clock := range []string{"08:20:01", "08:20:02", "08:20:03"} {
		lines = append(lines, line(t, decision("clusterroles", "deny", "ReservedUpdate", "Denied", recordName), code(403, ""), at(clock)))
	}
	own := recordOf(recordName, 1, "08:20:01", "08:20:01")
	if got := logOf(t, lines...).Compare([]v1alpha1.AuditRecord{own}).ToStore(); len(got) != 1 || got[0].Spec.Count != 2 {
		t.Errorf("got %+v, want one record of 2 writes", got)
	}
}

func TestAGzipFileWithAnotherPartAtItsEndIsCutOff(t *testing.T) {
	t.Parallel()
	ids, errs := read(append(zipped(t, line(t, edit{"auditID": "a"})), "no gzip header"...))
	if diff := gocmp.Diff([]string{"a"}, ids); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff([]string{ErrCutOff.Error() + ": gzip: invalid header"}, errs); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

var updateGolden = flag.Bool("update", false, "write the golden screens anew; read the difference before you commit it")

func noon() time.Time { return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) }

func screen(width int) Screen { return Screen{Width: width, Now: noon(), Place: time.UTC} }

func recordOf(outcome v1alpha1.Outcome, operation admissionv1.Operation, resource, user string) v1alpha1.AuditRecord {
	at := metav1.NewMicroTime(noon().Add(-192 * time.Second))
	return v1alpha1.AuditRecord{
		ObjectMeta: metav1.ObjectMeta{Name: "20261125t1150-" + strings.ToLower(string(operation)) + "-0a1b2c3d4e5f60718293"},
		Spec: v1alpha1.AuditRecordSpec{
			Outcome: outcome, Operation: operation, Object: v1alpha1.ParseObjectReference(resource), Resource: resource, Reason: "ReservedUpdate", User: v1alpha1.User{Name: user},
			FirstTime: at, LastTime: at, Count: 1,
		},
	}
}

func records() []v1alpha1.AuditRecord {
	const role = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
	full := recordOf(v1alpha1.Denied, "UPDATE", role, "alice")
	full.Spec.Changed = []string{"rules[2].verbs", "metadata.labels.a"}
	full.Spec.Message = `ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: rules[2].verbs).`
	full.Spec.User = v1alpha1.User{Name: "alice", UID: "1000", Groups: []string{"system:masters", "system:authenticated"}}
	full.Spec.FirstTime = metav1.NewMicroTime(noon().Add(-9 * time.Minute))
	full.Spec.Count = 1234
	full.Spec.Counts = []v1alpha1.ReplicaCount{{Replica: "guard-0.x", Count: 1000}, {Replica: "guard-1.y", Count: 234}}
	full.Spec.LastRequestUID, full.Spec.Replica = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "guard-1.y"
	full.Spec.Source, full.Spec.Caller = v1alpha1.SourceGuard, v1alpha1.CallerVerified
	full.Status.Acknowledgements = []v1alpha1.Acknowledgement{{By: "bob", At: metav1.NewTime(noon()), Note: "a test", Count: 1234}}
	old := recordOf(v1alpha1.Restored, "CREATE", "serviceaccounts/kube-system/apigw-ingress", "system:serviceaccount:argocd:argocd-application-controller")
	old.Spec.LastTime = metav1.NewMicroTime(noon().AddDate(0, 0, -7))
	unread := recordOf(v1alpha1.Denied, "", "", "")
	unread.Name, unread.Spec.Reason = "20261125t1150-unreadable-1a1b2c3d4e5f60718293", "Unreadable"
	wide := recordOf(v1alpha1.WouldDeny, "DELETE", "secrets/kube-system/apigw-ingress-token-guardian", strings.Repeat("網關", 20))
	return []v1alpha1.AuditRecord{full, old, unread, wide, recordOf(v1alpha1.Unlocked, "DELETE", role, "bob"), recordOf(v1alpha1.Unguarded, "DELETE", role, "mallory")}
}

func tableOf(t *testing.T, s Screen, layout Layout) string {
	t.Helper()
	var out bytes.Buffer
	all := records()
	table := NewTable(s, layout, all)
	if err := table.Header(&out); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := table.Row(&out, &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func recordText(t *testing.T, s Screen) string {
	t.Helper()
	var out bytes.Buffer
	if err := s.Record(&out, &records()[0]); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func unlockText(t *testing.T, s Screen, unlock *v1alpha1.Unlock, records []v1alpha1.AuditRecord) string {
	t.Helper()
	var out bytes.Buffer
	if err := s.Unlock(&out, "unlock-x7k2p", unlock, records); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// someUnlock is an Unlock with all fields.
func someUnlock() *v1alpha1.Unlock {
	at := metav1.NewTime(noon().Add(-5 * time.Minute))
	return &v1alpha1.Unlock{
		ObjectMeta: metav1.ObjectMeta{Name: "unlock-x7k2p", CreationTimestamp: at},
		Spec: v1alpha1.UnlockSpec{
			Reservation: "apigw-ingress", Reason: "add a rule, ticket 4711", RequestedBy: "alice", Users: []string{"alice", "bob"},
			Operations: []admissionv1.Operation{"UPDATE", "DELETE"}, ExpiresAt: metav1.NewTime(at.Add(10 * time.Minute)),
		},
		Status: v1alpha1.UnlockStatus{State: v1alpha1.UnlockOpen, ApprovedBy: "carol"},
	}
}

func summaryText(t *testing.T, s Screen) string {
	t.Helper()
	var out bytes.Buffer
	many := records()
	for i := range 30 {
		more := recordOf(v1alpha1.Denied, "UPDATE", "configmaps/edge/a", fmt.Sprintf("user-%02d", i))
		more.Spec.LastTime = metav1.NewMicroTime(noon().AddDate(0, 0, -i))
		more.Spec.Count = int64(10 * i)
		many = append(many, more)
	}
	summary := audit.Summarize(many, time.UTC)
	if err := s.Summary(&out, &summary); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestScreensAreAsTheirGoldenFiles(t *testing.T) {
	t.Parallel()
	coloured := screen(100)
	coloured.Colour = true
	screens := map[string]string{
		"table":           tableOf(t, screen(0), Layout{}),
		"table-wide":      tableOf(t, screen(80), Layout{Wide: true}),
		"table-80":        tableOf(t, screen(80), Layout{}),
		"table-60":        tableOf(t, screen(60), Layout{}),
		"table-100":       tableOf(t, coloured, Layout{}),
		"table-live":      tableOf(t, screen(80), Layout{Live: true}),
		"record":          recordText(t, screen(80)),
		"record-coloured": recordText(t, coloured),
		"unlock":          unlockText(t, screen(0), someUnlock(), records()[4:5]),
		"unlock-coloured": unlockText(t, coloured, someUnlock(), records()[4:5]),
		"unlock-unused":   unlockText(t, screen(80), someUnlock(), nil),
		"unlock-gone":     unlockText(t, screen(80), nil, records()[4:5]),
		"summary":         summaryText(t, screen(0)),
		"summary-80":      summaryText(t, screen(80)),
	}
	for name, got := range screens {
		golden := "testdata/" + name + ".golden"
		if *updateGolden {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, isScreen := screens[strings.TrimSuffix(entry.Name(), ".golden")]; !isScreen {
			t.Errorf("%s belongs to no screen", entry.Name())
		}
	}
}

func TestNoLineIsWiderThanItsTerminal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{50, 60, 79, 80, 81, 100, 120, 200} {
		for name, text := range map[string]string{
			"table": tableOf(t, screen(width), Layout{}), "live": tableOf(t, screen(width), Layout{Live: true}), "summary": summaryText(t, screen(width)),
		} {
			for line := range strings.Lines(text) {
				if got := cells(strings.TrimSuffix(line, "\n")); got > width {
					t.Errorf("%s at %d columns has a line of %d: %s", name, width, got, line)
				}
			}
		}
	}
}

// What a person sees narrowed must still lead to the record.
func TestTheNarrowestTableNamesEachRecordByAPartOfItsName(t *testing.T) {
	t.Parallel()
	lines := slices.Collect(strings.Lines(tableOf(t, screen(50), Layout{})))[1:]
	for i, record := range records() {
		fields := strings.Fields(lines[i])
		if shown := fields[len(fields)-1]; !strings.Contains(record.Name, shown) || len(shown) < 8 {
			t.Errorf("%s is shown as %q", record.Name, shown)
		}
	}
}

func TestALiveTableHasRoomForRowsToCome(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := NewTable(screen(120), Layout{Live: true}, nil)
	record := recordOf(v1alpha1.WouldDeny, "DELETE", "secrets/kube-system/a", "alice")
	if err := table.Row(&out, &record); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), ellipsis) {
		t.Errorf("something is shortened: %s", out.String())
	}
}

func TestColourTakesNoRoom(t *testing.T) {
	t.Parallel()
	coloured := screen(80)
	coloured.Colour = true
	text := tableOf(t, coloured, Layout{})
	for _, sequence := range []string{"\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[1m", "\x1b[0m"} {
		if !strings.Contains(text, sequence) {
			t.Errorf("no %q", sequence)
		}
		text = strings.ReplaceAll(text, sequence, "")
	}
	if diff := cmp.Diff(tableOf(t, screen(80), Layout{}), text); diff != "" {
		t.Errorf("(-plain +coloured)\n%s", diff)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		most int
		want string
	}{
		{"alice", 5, "alice"},
		{"alice", 4, "a…ce"},
		{"alice", 1, "…"},
		{"alice", 0, "…"},
		{"網關網關", 8, "網關網關"},
		{"網關網關", 7, "網…網關"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
	} {
		if got := shorten(test.text, test.most); got != test.want {
			t.Errorf("%q in %d columns is %q, want %q", test.text, test.most, got, test.want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	s := screen(0)
	for want, at := range map[string]time.Time{
		"0s": noon().Add(500 * time.Millisecond), "3m12s": noon().Add(-192 * time.Second), "7d": noon().AddDate(0, 0, -7), "in 5m": noon().Add(5 * time.Minute),
	} {
		if got := s.age(at); got != want {
			t.Errorf("%s is %q, want %q", at, got, want)
		}
	}
}

func TestAListMarksCallersThatWereNotVerified(t *testing.T) {
	record := recordOf(v1alpha1.Denied, "UPDATE", "secrets/kube-system/x", "mallory")
	record.Spec.Caller = v1alpha1.CallerUnverified
	for _, width := range []int{0, 60, 200} {
		var out bytes.Buffer
		table := NewTable(screen(width), Layout{}, []v1alpha1.AuditRecord{record})
		if err := table.Row(&out, &record); err != nil || !strings.Contains(out.String(), "unver") {
			t.Errorf("%d columns: got %q (%v)", width, out.String(), err)
		}
	}
	var out bytes.Buffer
	if err := screen(80).Record(&out, &record); err != nil || !strings.Contains(out.String(), "Unverified") {
		t.Errorf("got %q (%v)", out.String(), err)
	}
}

func TestASummaryFitsItsTerminal(t *testing.T) {
	t.Parallel()
	for width := 40; width <= 200; width++ {
		for line := range strings.Lines(summaryText(t, screen(width))) {
			if got := cells(strings.TrimSuffix(line, "\n")); got > width {
				t.Fatalf("%d columns of %d: %q", got, width, line)
			}
		}
	}
}

// The reason tells what happened; a terminal of 100 columns has room for it.
func TestATableOf100ColumnsHasTheReason(t *testing.T) {
	t.Parallel()
	for _, layout := range []Layout{{}, {Live: true}} {
		text := tableOf(t, screen(100), layout)
		if !strings.Contains(text, "REASON") {
			t.Errorf("%+v:\n%s", layout, text)
		}
		for line := range strings.Lines(text) {
			if cells(strings.TrimSuffix(line, "\n")) > 100 {
				t.Errorf("%+v: %q", layout, line)
			}
		}
	}
}

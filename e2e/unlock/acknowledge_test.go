// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// recordsOfEve returns the records of eve that fit further filter flags.
func recordsOfEve(t *testing.T, args ...string) []v1alpha1.AuditRecord {
	t.Helper()
	list := &v1alpha1.AuditRecordList{}
	as(t, "alice", append([]string{"audit", "list", "--by-user", "eve", "-o", "json"}, args...)...).Require(t, 0).Into(t, list)
	return list.Items
}

func TestAnAcknowledgementHoldsUntilTheRecordCountsMore(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 1)
	write := change(world(t).Role)
	requireDenied(t, "eve", write)
	var records []v1alpha1.AuditRecord
	harness.Eventually(t, "the denial is recorded", func() (bool, any) {
		records = recordsOfEve(t, "--unacknowledged")
		return len(records) == 1, records
	})
	name := records[0].Name
	as(t, "alice", "audit", "ack", name, "--note", "a test", "--dry-run").Require(t, 0, name, "(server dry run)")
	as(t, "alice", "audit", "ack", name, "--note", "a test", "--dry-run=client").Require(t, 0, name, "(dry run)")
	if got := recordsOfEve(t)[0].Status.Acknowledgements; got != nil {
		t.Fatalf("a dry run has stored %+v", got)
	}
	as(t, "alice", "audit", "ack", name, "--note", "a test").Require(t, 0, "auditrecord.guardian.apigw.io/"+name+" acknowledged")
	as(t, "alice", "audit", "show", name).Require(t, 0, "Acknowledged", "alice at", "a test")
	if got := recordsOfEve(t, "--unacknowledged"); len(got) != 0 {
		t.Errorf("the record is unacknowledged: %+v", got)
	}
	requireForgeriesAreRejected(t, name)
	// The guard counts on, and keeps the acknowledgement.
	requireDenied(t, "eve", write)
	harness.Eventually(t, "the record is unacknowledged again", func() (bool, any) {
		records = recordsOfEve(t, "--unacknowledged")
		return len(records) > 0, records
	})
	if records[0].Name == name {
		if acks := records[0].Status.Acknowledgements; len(acks) != 1 || acks[0].By != "alice" || acks[0].Count != 1 {
			t.Errorf("the acknowledgement is lost: %+v", acks)
		}
	}
	as(t, "bob", "audit", "ack", "--by-user", "eve", "--note", "seen again").Require(t, 0, " acknowledged")
	if got := recordsOfEve(t, "--unacknowledged"); len(got) != 0 {
		t.Errorf("the record is unacknowledged: %+v", got)
	}
	as(t, "bob", "audit", "ack", "absent", "--note", "x").Require(t, 1, "absent")
}

// requireForgeriesAreRejected tries what no user may do with the acknowledgements of a record, which alice has acknowledged.
func requireForgeriesAreRejected(t *testing.T, name string) {
	t.Helper()
	const records = "/apis/guardian.apigw.io/v1alpha1/auditrecords/"
	before := recordsOfEve(t)[0].Status.Acknowledgements[0]
	kept := fmt.Sprintf(`{"by":%q,"at":%q,"note":%q,"count":1}`, before.By, before.At.UTC().Format(time.RFC3339), before.Note)
	ack := func(by string, at time.Time, note string, count int) string {
		return fmt.Sprintf(`%s,{"by":%q,"at":%q,"note":%q,"count":%d}`, kept, by, at.UTC().Format(time.RFC3339), note, count)
	}
	from, now := startOfLog(t), time.Now()
	for what, test := range map[string]struct{ acks, reason string }{
		"in another user's name":    {ack("bob", now, "x", 1), "AckRejected"},
		"dated back":                {ack("mallory", now.Add(-time.Hour), "x", 1), "AckRejected"},
		"dated forward":             {ack("mallory", now.Add(time.Hour), "x", 1), "AckRejected"},
		"of writes to come":         {ack("mallory", now, "x", 1000), "AckRejected"},
		"in the place of alice's":   {fmt.Sprintf(`{"by":"mallory","at":%q,"note":"x","count":1}`, now.UTC().Format(time.RFC3339)), "AckRejected"},
		"none, where alice's was":   {"", "AckRejected"},
		"without a note":            {ack("mallory", now, "", 1), bySchema},
		"with a note that is blank": {ack("mallory", now, " ", 1), "AckRejected"},
	} {
		answer := do(t, "mallory", scenario.Write{
			Method: http.MethodPatch, Path: records + name + "/status", ContentType: scenario.MergePatch,
			Body: []byte(`{"status":{"acknowledgements":[` + test.acks + `]}}`),
		})
		requireRejected(t, from, what, answer, test.reason)
	}
	// The record itself cannot bring an acknowledgement in: the API server ignores its status.
	answer := do(t, "mallory", scenario.Write{
		Method: http.MethodPatch, Path: records + name, ContentType: scenario.MergePatch,
		Body: []byte(`{"status":{"acknowledgements":[` + ack("bob", now, "x", 1) + `]}}`),
	})
	if got := recordsOfEve(t)[0].Status.Acknowledgements; answer.Code != http.StatusOK || len(got) != 1 || got[0] != before {
		t.Errorf("got %d, and %+v", answer.Code, got)
	}
}

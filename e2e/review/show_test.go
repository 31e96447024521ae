// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func TestShowSaysAllAndWhatToDo(t *testing.T) {
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	mint := put(t, denial(time.Minute, func(f *audit.Event) { f.Reason = "TokenMint" }))
	guardian(t, "audit", "show", name).require(t, 0, name, "Denied", "UPDATE", "secrets/kube-system/reserved", "data.token", "ReservedUpdate",
		`Secret "reserved" must not be updated`, "alice", "system:authenticated", "s ago)", "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "What to do", "Ask this user")
	guardian(t, "audit", "show", mint).require(t, 0, "Treat it as an attack", "apigw-guardian audit list --user alice")
}

func TestShowFindsARecordByAPartOfItsName(t *testing.T) {
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	other := put(t, denial(time.Hour, func(f *audit.Event) { f.User.Name = "bob" }))
	guardian(t, "audit", "show", name[len(name)-8:]).require(t, 0, name, "alice")
	guardian(t, "audit", "show", "update").require(t, 1, "2 records have \"update\" in their names", name, other)
	guardian(t, "audit", "show", name+"0").require(t, 1, "no such audit record", "near it: ", name)
	guardian(t, "audit", "show", "nonsense").require(t, 1, "no such audit record", "apigw-guardian audit list")
	guardian(t, "audit", "show", "../secrets").require(t, 1, "no such audit record")
	guardian(t, "audit", "show").require(t, 2, "give the name of one record")
	guardian(t, "audit", "show", "").require(t, 2, "give the name of one record")
}

func TestSummaryCountsWrites(t *testing.T) {
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	countMore(t, name)
	countMore(t, name)
	put(t, denial(48*time.Hour, func(f *audit.Event) { f.User.Name = "bob" }))
	guardian(t, "audit", "summary").require(t, 0, "4 writes in 2 records", "By user", "alice  3  ########", "bob    1  ####", "By resource", "By day",
		time.Now().UTC().Add(-24*time.Hour).Format(time.DateOnly)+"  0\n")
	var summary audit.Summary
	guardian(t, "audit", "summary", "-o", "json").require(t, 0).into(t, &summary)
	if summary.Writes != 4 || len(summary.ByUser) != 2 || summary.ByUser[0] != (audit.Tally{Name: "alice", Count: 3}) || len(summary.ByDay) != 3 {
		t.Errorf("got %+v", summary)
	}
}

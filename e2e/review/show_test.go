// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func TestShowSaysAllAndWhatToDo(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	mint := put(t, denial(time.Minute, func(f *audit.Event) { f.Reason = "TokenMint" }))
	harness.Run(t, "audit", "show", name).Require(t, 0, name, "Denied", "UPDATE", "secrets/kube-system/reserved", "data.token", "ReservedUpdate",
		`Secret "reserved" must not be updated`, "alice", "system:authenticated", "s ago)", "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d", "What to do", "Ask this user")
	harness.Run(t, "audit", "show", mint).Require(t, 0, "Treat it as an attack", "apigw-guardian audit list --by-user alice")
}

func TestShowFindsARecordByAPartOfItsName(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	other := put(t, denial(time.Hour, func(f *audit.Event) { f.User.Name = "bob" }))
	harness.Run(t, "audit", "show", name[len(name)-8:]).Require(t, 0, name, "alice")
	harness.Run(t, "audit", "show", "update").Require(t, 1, name, other)
	harness.Run(t, "audit", "show", name+"0").Require(t, 1, name)
	harness.Run(t, "audit", "show", "nonsense").Require(t, 1, "apigw-guardian audit list")
	harness.Run(t, "audit", "show", "../secrets").Require(t, 1)
	harness.Run(t, "audit", "show").Require(t, 2)
	harness.Run(t, "audit", "show", "").Require(t, 2)
}

// A user who may only read records sees the writes under an unlock. That its name is known does not make other names known.
func TestShowListsTheWritesUnderAnUnlock(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, func(f *audit.Event) {
		f.Outcome, f.Reason, f.Unlock, f.Justification = v1alpha1.Unlocked, "Unlocked", "unlock-x7k2p", "ticket 4711"
	}))
	other := put(t, denial(time.Minute, nil))
	viewer := kubeconfigOf(t, "viewer-of-unlocks", "get", "list")
	shown := harness.RunAs(t, viewer, "audit", "show", "unlock-x7k2p").Require(t, 0, "you may not read unlocks", "Writes under it: 1", name)
	if strings.Contains(shown.Stdout, other) {
		t.Errorf("it lists a write under no unlock\n%s", shown.Stdout)
	}
	harness.RunAs(t, viewer, "audit", "show", name).Require(t, 0, "unlock-x7k2p", "ticket 4711", "apigw-guardian audit show unlock-x7k2p")
	harness.RunAs(t, viewer, "audit", "show", "unlock-x7").Require(t, 1)
}

func TestSummaryCountsWrites(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	countMore(t, name)
	countMore(t, name)
	put(t, denial(48*time.Hour, func(f *audit.Event) { f.User.Name = "bob" }))
	harness.Run(t, "audit", "summary").Require(t, 0, "4 writes in 2 records", "By user", "alice  3  ########", "bob    1  ####", "By resource", "By day",
		time.Now().UTC().Add(-24*time.Hour).Format(time.DateOnly)+"  0\n")
	var summary audit.Summary
	harness.Run(t, "audit", "summary", "-o", "json").Require(t, 0).Into(t, &summary)
	if summary.Writes != 4 || len(summary.ByUser) != 2 || summary.ByUser[0] != (audit.Tally{Name: "alice", Count: 3}) || len(summary.ByDay) != 3 {
		t.Errorf("got %+v", summary)
	}
}

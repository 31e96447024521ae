// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command chaos runs the tests of the reliability and security targets R1 to R18, in their short form, and prints which target holds.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testjson"
)

// row is a target. Each test is a package below e2e, a dot and a top-level test.
type row struct {
	id, scenario string
	tests        []string
}

func rows() []row {
	return []row{
		{"R1", "every form of write, by every identity", []string{".TestEveryWriteFormByEveryIdentity"}},
		{"R2", "deletecollection and the end of a namespace elsewhere", []string{".TestNothingElsewhereIsTouched"}},
		{"R3", "mints, and tampering that looks innocent", []string{".TestNoTokenIsMinted", ".TestAnUnfilledTokenSecretCannotBeForged"}},
		{"R4", "the control plane's own writes", []string{".TestControllerManagerKeepsTheToken", ".TestLastUseIsNotedPastAHungGuard"}},
		{"R5", "guards killed under load", []string{"recording.TestNoDenialIsLostWhenGuardsAreKilled", "recording.TestTheSpoolSurvivesItsGuard"}},
		{"R7", "all replicas hang", []string{
			".TestReservedWritesFailClosedPastAHungGuard", "drift.TestAHungGuardIsLockedAndDoesNotHoldUpVerify",
		}},
		{"R8", "API server restarted, etcd stopped", []string{
			"recording.TestNoDenialIsLostWhileTheAPIServerIsDown", "recording.TestNoDenialIsLostWhileEtcdIsDown",
		}},
		{"R9", "certificates rotated, expired, of another source", []string{
			"certs.TestCAsRotateUnderLoad", "certs.TestAnExpiredCertificateFailsClosedUntilItsRepair",
			"certs.TestTheSourceOfCertificatesChangesUnderLoad", "certs.TestAnHourOfClockSkewDoesNoHarm",
		}},
		{"R10", "registration edited, deleted, rewritten; lease held", []string{
			".TestRegistrationIsPutBack", ".TestARewrittenWebhookConfigurationIsNotCalledRepaired", ".TestALeaseHeldForADayIsTakenOver",
			".TestAnyReplicaRepairsWhereNoneLeads", "drift.TestLostProtectionIsToldApart",
		}},
		{"R11", "junk connections, slow clients, huge and forged reviews", []string{
			"siege.TestTheGuardDeniesUnderAttack", "recording.TestForgedReviewsHideNoUser", ".TestOversizedReviewIsDeniedThroughTheAPIServer",
		}},
		{"R12", "store down, disk full, network bad, CRD deleted", []string{
			"recording.TestNoDenialIsLostWhileTheStoreIsDown", "recording.TestADiskThatIsFullFailsNoCall",
			"recording.TestNoDenialIsLostOverABadNetwork", "recording.TestTheRecordsOfTheMemoryComeBackWithTheirCRD",
		}},
		{"R13", "no value of a Secret in any output", []string{"recording.TestNoOutputContainsAValueOfASecret"}},
		{"R14", "the names were taken before", []string{".TestAuthorizeWhereTheNamesWereTaken"}},
		{"R17", "unlocks forged, unseen, expired, in a flood", []string{
			"unlock.TestAnUnlockAllowsNoMoreThanItSays", "unlock.TestNoClockProlongsAnUnlock",
			"unlock.TestUnlocksAreHonouredOnlyWhileTheyCanBeRead", "unlock.TestAnUnlockDuringAFloodOfDenials",
		}},
		{"R18", "retire and rotate killed after each write", []string{
			"retire.TestRetireKilledAfterEachWrite", "retire.TestRotateKilledAfterEachWrite",
		}},
	}
}

// elsewhere has the targets that other commands prove.
const elsewhere = "R6 and R15 need a node: make e2e. R16 takes ten minutes for each target: make fuzz.\n"

func main() { program.Main("chaos", run) }

func run(ctx context.Context) error {
	began := time.Now()
	results, err := runTests(ctx)
	if err != nil {
		return err
	}
	failed := 0
	fmt.Printf("\n| target | scenario | tests | result |\n|---|---|---|---|\n")
	for _, row := range rows() {
		passed := 0
		for _, test := range row.tests {
			if results[test] == "pass" {
				passed++
			}
		}
		result := "holds"
		if passed < len(row.tests) {
			result = "FAILED"
			failed++
		}
		fmt.Printf("| %s | %s | %d of %d passed | %s |\n", row.id, row.scenario, passed, len(row.tests), result)
	}
	fmt.Printf("\n%s%d of %d targets hold, after %s\n", elsewhere, len(rows())-failed, len(rows()), time.Since(began).Round(time.Second))
	if failed > 0 {
		return errors.New("a target does not hold: its tests are above")
	}
	return nil
}

// runTests returns the result of each test of the rows.
func runTests(ctx context.Context) (map[string]string, error) {
	packages, names := selection()
	results, output := map[string]string{}, map[string][]string{}
	_, err := testjson.Run(ctx, slices.Concat([]string{
		"test", "-json", "-p", "2", "-count=1", "-timeout", "40m", "-run", "^(" + strings.Join(names, "|") + ")$",
	}, packages), os.Stdout, func(e testjson.Event) {
		name, _, isSubtest := strings.Cut(e.Test, "/")
		test := strings.Trim(strings.TrimPrefix(e.Package, testjson.Module+"e2e"), "/") + "." + name
		switch {
		case e.Action == "output":
			output[test] = append(output[test], e.Output)
		case isSubtest || name == "":
		case e.Action == "fail":
			fmt.Print(strings.Join(output[test], ""))
			fallthrough
		case e.Action == "pass", e.Action == "skip":
			results[test] = e.Action
			fmt.Printf("%s  %s\n", e.Action, test)
		}
	})
	return results, err
}

// selection returns the packages and the names of all tests, once each.
func selection() (packages, names []string) {
	for _, row := range rows() {
		for _, test := range row.tests {
			pkg, name, _ := strings.Cut(test, ".")
			packages, names = append(packages, strings.TrimSuffix("./e2e/"+pkg, "/")), append(names, name)
		}
	}
	slices.Sort(packages)
	slices.Sort(names)
	return slices.Compact(packages), slices.Compact(names)
}

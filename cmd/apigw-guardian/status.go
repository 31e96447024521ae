// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/status"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

func newStatus(shared *sharedFlags) *cobra.Command {
	output, several := outputFlag{}, fleet{}
	var namespace string
	read := func(ctx context.Context, shared *sharedFlags) (clusterStatus, error) {
		return readStatus(ctx, shared, namespace)
	}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Report whether API Gateway is authorized, and its resources are protected",
		Long: `status checks the reserved resources, and tries a forbidden write to each as a server dry-run; it changes nothing.
It exits 3 unless all are authorized, or all are retired, and protected, and denials can be recorded as far as the caller may know, and
the certificates have no problem.`,
		Example: `  apigw-guardian status
  apigw-guardian status -o json
  apigw-guardian status --all-contexts`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if several.isSet() {
				return ofFleet(cmd, &several, read, printStatuses)
			}
			found, err := read(cmd.Context(), shared)
			if err != nil && !errors.Is(err, errNotAsItShould) {
				return err
			}
			return errors.Join(output.print(cmd.OutOrStdout(), found, func(p *printer) { printStatus(p, found.Report, found.owners) }), err)
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	output.addTo(cmd)
	several.addTo(cmd, shared, &output, fleetLimit)
	return cmd
}

// clusterStatus is the status of one cluster, and the owners of its reservations.
type clusterStatus struct {
	status.Report

	owners string
}

// readStatus returns errNotAsItShould with a status that is not as it should be.
func readStatus(ctx context.Context, shared *sharedFlags, namespace string) (clusterStatus, error) {
	cluster, err := shared.cluster(ctx, namespace)
	if err != nil {
		return clusterStatus{}, err
	}
	records, err := store.New(cluster.Config)
	if err != nil {
		return clusterStatus{}, err
	}
	unlocks, err := unlock.NewClient(cluster.Config, namespace)
	if err != nil {
		return clusterStatus{}, err
	}
	report, err := status.Read(ctx, cluster, records, unlocks)
	if err == nil && !((report.Authorized || report.Retired != nil) && report.Protected && isRecorded(report) &&
		len(report.Certificates.Problems) == 0) {
		err = errNotAsItShould
	}
	return clusterStatus{report, ownersOf(cluster.Set)}, err
}

// printStatuses prints a row for each context that could be read.
func printStatuses(p *printer, members []member[clusterStatus]) {
	p.row("CONTEXT", "AUTHORIZED", "PROTECTED", "RECORDED", "DRIFT", "UNLOCKS", "DENIALS 24H", "FIRST REASON")
	for _, m := range members {
		if m.Result == nil {
			continue
		}
		report := &m.Result.Report
		authorized, denials, reason := yesNo(report.Authorized), "unknown", "-"
		if report.Retired != nil {
			authorized = "retired"
		}
		if report.Denials24h != nil {
			denials = strconv.FormatInt(*report.Denials24h, 10)
		}
		if reasons := slices.Concat(report.Reasons, report.Certificates.Problems); len(reasons) > 0 {
			reason = text.Printable(reasons[0], maxProblem)
		}
		p.row(m.Context, authorized, yesNo(report.Protected), yesNo(isRecorded(*report)), strconv.Itoa(len(report.Drift)),
			strconv.Itoa(len(report.Unlocks)), denials, reason)
	}
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "NO"
}

func printStatus(p *printer, report status.Report, owners string) {
	switch {
	case report.Retired != nil:
		p.linef("Retired %s since %s", owners, clock(report.Retired.Since))
	case report.Authorized:
		p.line("Authorized " + owners)
	default:
		p.line("Not authorized: " + owners)
	}
	p.line(protectionOf(report))
	if !isRecorded(report) {
		p.line("Not recorded")
	}
	for _, reason := range report.Reasons {
		p.line("  " + reason)
	}
	for _, remedy := range remediesOf(report.Protections) {
		p.line("To protect them, " + remedy)
	}
	printDrift(p, report)
	printGap(p, report.Gap)
	printPermissions(p, report)
	p.linef("Private network access: %s (%s)", report.PrivateNetwork, text.Printable(report.PrivateNetworkMessage, maxNote))
	denials := "unknown (" + report.DenialsProblem + ")"
	if report.Denials24h != nil {
		denials = strconv.FormatInt(*report.Denials24h, 10)
	}
	p.line("Denials in the last 24 h: " + denials)
	for _, warning := range report.TokenCleanup {
		p.line("Token: " + warning)
	}
	if end := report.Certificates.NotAfter; end != nil {
		p.line("Certificate authority: until " + clock(end))
	}
	for _, problem := range report.Certificates.Problems {
		p.line("  " + problem)
	}
}

// maxNote bounds what the replicas have noted: any client that may write their ConfigMap can change it.
const maxNote = 1024

// protectionOf tells apart what an administrator must do.
func protectionOf(report status.Report) string {
	switch report.Protection {
	case verify.Open:
		return "Not protected: open (writes to the reserved resources pass)"
	case verify.Locked:
		return "Not protected: locked (the guard does not answer, so every write to the reserved resources fails)"
	case verify.Observed:
		return "Not protected: observe mode (the guard allows writes to the reserved resources, and records them)"
	case verify.Unknown:
		return "Not known to be protected (you may not look, or the check failed)"
	}
	if report.Protected {
		return "Protected"
	}
	return "Not protected"
}

// remediesOf returns each remedy once.
func remediesOf(protections []verify.Protection) []string {
	var remedies []string
	for _, p := range protections {
		if p.Remedy != "" && !slices.Contains(remedies, p.Remedy) {
			remedies = append(remedies, p.Remedy)
		}
	}
	return remedies
}

func printDrift(p *printer, report status.Report) {
	for _, drifted := range report.Drift {
		p.linef("Drift: %s: %s%s", drifted.Resource, strings.Join(drifted.Paths, ", "), by(drifted.Writer))
		if drifted.Unlock != "" {
			p.linef("  It was changed under unlock %s, and its manifest was not: change the manifest to keep the change, or "+
				"restore it: apigw-guardian authorize --repair", drifted.Unlock)
		} else if drifted.Held != "" {
			p.line("  The guard does not restore it: " + text.Printable(drifted.Held, maxNote))
		}
	}
}

// by names the field manager that wrote last.
func by(writer live.Writer) string {
	if writer.Manager == "" {
		return ""
	}
	return fmt.Sprintf(" (last written by the field manager %q, at %s)", text.Printable(writer.Manager, maxNote), clock(writer.At))
}

// printGap prints the last time in which the guard did not decide.
func printGap(p *printer, gap *drift.Gap) {
	if gap == nil {
		return
	}
	how := "writes were refused"
	if gap.Defect != "" {
		how = "writes passed"
	}
	p.linef("Not decided from %s to %s: %s, %d changes", clock(gap.From), clock(gap.To), how, len(gap.Changes))
	for _, change := range gap.Changes {
		p.line("  " + text.Printable(change.Sentence(), maxNote))
	}
}

// printPermissions prints who may write to the reserved resources now.
func printPermissions(p *printer, report status.Report) {
	if report.UnlocksProblem != "" {
		p.line("Unlocks: unknown (" + report.UnlocksProblem + ")")
	}
	for _, u := range report.Unlocks {
		p.linef("Unlock %s: %s, %s until %s: %s", u.Name, u.State, strings.Join(u.Subjects(), ", "), clock(u.ExpiresAt), u.Reason)
	}
	for _, e := range report.Exemptions {
		end := "without an end"
		if e.DaysLeft != nil {
			end = fmt.Sprintf("%d days left", *e.DaysLeft)
		}
		p.linef("Exemption in %s: %s, %s: %s", e.Reservation, e.Subject(), end, e.Reason)
	}
}

// isRecorded is true if recording works, or the caller may not know.
func isRecorded(report status.Report) bool { return report.Recorded == nil || *report.Recorded }

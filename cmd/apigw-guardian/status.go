// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/status"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

func newStatus(shared *sharedFlags) *cobra.Command {
	output := outputFlag{}
	var namespace string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Report whether API Gateway is authorized, and its resources are protected",
		Long: `status checks the reserved resources, and tries a forbidden write to each as a server dry-run; it changes nothing.
It exits 3 unless all are authorized, or all are retired, and protected, and denials can be recorded as far as the caller may know.`,
		Example: `  apigw-guardian status
  apigw-guardian status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := shared.cluster(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			records, err := store.New(cluster.Config)
			if err != nil {
				return err
			}
			unlocks, err := unlock.NewClient(cluster.Config, namespace)
			if err != nil {
				return err
			}
			report, err := status.Read(cmd.Context(), cluster, records, unlocks)
			if err != nil {
				return err
			}
			err = output.print(cmd.OutOrStdout(), report, func(p *printer) { printStatus(p, report, ownersOf(cluster.Set)) })
			if err == nil && !((report.Authorized || report.Retired != nil) && report.Protected && isRecorded(report)) {
				return errNotAsItShould
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	output.addTo(cmd)
	return cmd
}

func printStatus(p *printer, report status.Report, owners string) {
	switch {
	case report.Retired != nil:
		p.line(fmt.Sprintf("Retired %s since %s", owners, report.Retired.Since.UTC().Format(time.RFC3339)))
	case report.Authorized:
		p.line("Authorized " + owners)
	default:
		p.line("Not authorized: " + owners)
	}
	if report.Protected {
		p.line("Protected")
	} else {
		p.line("Not protected")
	}
	if !isRecorded(report) {
		p.line("Not recorded")
	}
	for _, reason := range report.Reasons {
		p.line("  " + reason)
	}
	for _, drift := range report.Drift {
		p.line(fmt.Sprintf("Drift: %s: %s", drift.Resource, strings.Join(drift.Paths, ", ")))
		if drift.Unlock != "" {
			p.line(fmt.Sprintf("  It was changed under unlock %s, and its manifest was not: change the manifest to keep the change, or "+
				"restore it: apigw-guardian authorize --repair", drift.Unlock))
		}
	}
	printPermissions(p, report)
	p.line(fmt.Sprintf("Private network access: %s (%s)", report.PrivateNetwork, report.PrivateNetworkMessage))
	denials := "unknown (" + report.DenialsProblem + ")"
	if report.Denials24h != nil {
		denials = strconv.FormatInt(*report.Denials24h, 10)
	}
	p.line("Denials in the last 24 h: " + denials)
	if end := report.Certificates.NotAfter; end != nil {
		p.line("Certificate authority: until " + end.Format(time.RFC3339))
	}
	for _, problem := range report.Certificates.Problems {
		p.line("  " + problem)
	}
}

// printPermissions prints who may write to the reserved resources now.
func printPermissions(p *printer, report status.Report) {
	if report.UnlocksProblem != "" {
		p.line("Unlocks: unknown (" + report.UnlocksProblem + ")")
	}
	for _, u := range report.Unlocks {
		p.line(fmt.Sprintf("Unlock %s: %s, %s until %s: %s", u.Name, u.State, strings.Join(u.Subjects(), ", "),
			u.ExpiresAt.UTC().Format(time.RFC3339), u.Reason))
	}
	for _, e := range report.Exemptions {
		end := "without an end"
		if e.DaysLeft != nil {
			end = fmt.Sprintf("%d days left", *e.DaysLeft)
		}
		p.line(fmt.Sprintf("Exemption in %s: %s, %s: %s", e.Reservation, e.Subject(), end, e.Reason))
	}
}

// isRecorded is true if recording works, or the caller may not know.
func isRecorded(report status.Report) bool { return report.Recorded == nil || *report.Recorded }

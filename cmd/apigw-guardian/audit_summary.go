// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func newAuditSummary(shared *sharedFlags) *cobra.Command {
	flags, output, several := &filterFlags{}, outputFlag{}, fleet{}
	cmd := &cobra.Command{
		Use:   "summary",
		Short: "Count the recorded requests per outcome, reason, user, resource and day",
		Long: `summary counts requests, not records, per outcome, reason, user, resource and day. All requests of a record count on the day
of the last one.`,
		Example: `  apigw-guardian audit summary --since 30d
  apigw-guardian audit summary --outcome Denied -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if several.isSet() {
				return ofFleet(cmd, &several, func(ctx context.Context, shared *sharedFlags) (audit.Summary, error) {
					own := *flags // the filter is completed for each cluster
					records, err := own.list(ctx, shared)
					return audit.Summarize(records, time.Local), err
				}, printSummaries)
			}
			records, err := flags.list(cmd.Context(), shared)
			if err != nil {
				return err
			}
			summary := audit.Summarize(records, time.Local)
			switch {
			case output.format != formatTable:
				return output.print(cmd.OutOrStdout(), summary, nil)
			case summary.Records == 0:
				flags.sayNone(cmd.ErrOrStderr())
				return nil
			}
			return screenOf(cmd.OutOrStdout()).Summary(cmd.OutOrStdout(), &summary)
		},
	}
	flags.addTo(cmd, shared)
	output.addTo(cmd)
	several.addTo(cmd, shared, &output, fleetLimit)
	return cmd
}

// printSummaries prints a row for each context that could be read.
func printSummaries(p *printer, members []member[audit.Summary]) {
	p.row("CONTEXT", "RECORDS", "WRITES", "DENIED", "TOP USER", "TOP RESOURCE")
	top := func(tallies []audit.Tally) string {
		if len(tallies) == 0 {
			return "-"
		}
		return fmt.Sprintf("%s (%d)", cmp.Or(tallies[0].Name, "not known"), tallies[0].Count)
	}
	for _, m := range members {
		if m.Result == nil {
			continue
		}
		denied := int64(0)
		for _, tally := range m.Result.ByOutcome {
			if tally.Name == string(v1alpha1.Denied) {
				denied = tally.Count
			}
		}
		p.row(m.Context, strconv.Itoa(m.Result.Records), strconv.FormatInt(m.Result.Writes, 10), strconv.FormatInt(denied, 10),
			top(m.Result.ByUser), top(m.Result.ByResource))
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

func newAuditSummary(shared *sharedFlags) *cobra.Command {
	flags, output := &filterFlags{}, outputFlag{}
	cmd := &cobra.Command{
		Use:   "summary",
		Short: "Count the recorded requests per outcome, reason, user, resource and day",
		Long: `summary counts requests, not records, per outcome, reason, user, resource and day. All requests of a record count on the day
of the last one.`,
		Example: `  apigw-guardian audit summary --since 30d
  apigw-guardian audit summary --outcome Denied -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	return cmd
}

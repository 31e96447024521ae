// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
)

func newAuditExport(shared *sharedFlags) *cobra.Command {
	flags := &filterFlags{}
	var format string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the records for another program, oldest first",
		Long: `export writes the records to standard output, in the order of their last writes, oldest first: as JSON lines, as CSV for a spreadsheet, as events of the Open
Cybersecurity Schema Framework (class API Activity), or as CloudEvents.`,
		Example: `  apigw-guardian audit export --format csv --since 30d > denials.csv
  apigw-guardian audit export --format ocsf --since 24h`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(export.Formats(), export.Format(format)) {
				return fmt.Errorf("%w: --format %q: must be %s", errUsage, format, oneOf(texts(export.Formats())))
			}
			records, err := flags.list(cmd.Context(), shared)
			if err != nil {
				return err
			}
			buffer := bufio.NewWriter(cmd.OutOrStdout())
			return errors.Join(export.Write(buffer, export.Format(format), version, audit.Oldest(records)), buffer.Flush())
		},
	}
	cmd.Flags().StringVar(&format, "format", string(export.JSONL), oneOf(texts(export.Formats())))
	complete(cmd, "format", texts(export.Formats())...)
	flags.addTo(cmd, shared)
	return cmd
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/terminal"
)

// recordList is the result of audit list, as JSON and YAML.
type recordList struct {
	Items []v1alpha1.AuditRecord `json:"items"`
}

// listing is what audit list was asked for.
type listing struct {
	filterFlags
	filter audit.Filter
	output outputFlag
	limit  int
	watch  bool
}

func newAuditList(shared *sharedFlags) *cobra.Command {
	list := &listing{output: outputFlag{format: formatTable, more: []string{formatWide, formatCSV}}}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the denied requests, newest first",
		Long: `list prints a row for each record, newest first. Equal requests of ten minutes share a record, which counts them. On a
terminal, the table fits it: what a record is called there, audit show finds. Elsewhere nothing is shortened.`,
		Example: `  apigw-guardian audit list --since 24h
  apigw-guardian audit list --user alice --outcome Denied -o wide
  apigw-guardian audit list --since 7d --limit 100 -o json
  apigw-guardian audit list --watch`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := list.check(time.Now()); err != nil {
				return err
			}
			return list.run(cmd, shared)
		},
	}
	list.addTo(cmd.Flags())
	list.output.addTo(cmd)
	cmd.Flags().IntVar(&list.limit, "limit", 0, "only the newest so many; 0 for all")
	cmd.Flags().BoolVarP(&list.watch, "watch", "w", false,
		"go on with each record that comes or counts more, oldest first, until Ctrl-C; as JSON, one record to a line")
	return cmd
}

// check completes the listing, or says what the caller must write differently.
func (l *listing) check(now time.Time) (err error) {
	if l.limit < 0 {
		return fmt.Errorf("%w: --limit %d: give a number above zero, or 0 for all", errUsage, l.limit)
	}
	if l.watch && l.output.format != formatTable && l.output.format != formatWide && l.output.format != formatJSON {
		return fmt.Errorf("%w: --watch goes with -o table, wide or json, not with -o %s", errUsage, l.output.format)
	}
	l.filter, err = l.filterFlags.filter(now)
	return err
}

func (l *listing) run(cmd *cobra.Command, shared *sharedFlags) error {
	store, err := shared.records()
	if err != nil {
		return err
	}
	if l.watch {
		return l.follow(cmd, store)
	}
	records, err := store.List(cmd.Context(), l.filter)
	if err != nil {
		return err
	}
	audit.SortNewestFirst(records)
	if l.limit > 0 {
		records = records[:min(len(records), l.limit)]
	}
	switch l.output.format {
	case formatTable, formatWide:
		return l.printTable(cmd, records)
	case formatCSV:
		return export.Write(cmd.OutOrStdout(), export.CSV, version, records)
	}
	return l.output.print(cmd.OutOrStdout(), recordList{Items: append([]v1alpha1.AuditRecord{}, records...)}, nil)
}

func (l *listing) printTable(cmd *cobra.Command, records []v1alpha1.AuditRecord) error {
	if len(records) == 0 {
		sayNone(cmd.ErrOrStderr(), l.filter)
		return nil
	}
	buffer := bufio.NewWriter(cmd.OutOrStdout())
	table := terminal.NewTable(screenOf(cmd.OutOrStdout()), terminal.Layout{Wide: l.output.format == formatWide}, records)
	return errors.Join(writeTable(buffer, table, records), buffer.Flush())
}

func writeTable(w io.Writer, table *terminal.Table, records []v1alpha1.AuditRecord) error {
	if err := table.Header(w); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	for i := range records {
		if err := table.Row(w, &records[i]); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	return nil
}

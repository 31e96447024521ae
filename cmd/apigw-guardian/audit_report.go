// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/report"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

type reportFlags struct {
	filterFlags
	format      report.Format
	clusterName string
	auditLogs   []string
}

// reportAge is the default of --since, before --until or now.
const reportAge = 30 * 24 * time.Hour

func newAuditReport(shared *sharedFlags) *cobra.Command {
	flags := &reportFlags{}
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write one document about the recorded requests, for an auditor",
		Long: `report writes one document to standard output: totals, trend, users, resources, unlocks with their reasons, the use of
exemptions, gaps in protection and acknowledgements. The HTML page needs no other file and no network, and can be printed.

With --audit-log, it also says how many writes of the API server's audit log have no record, and exits 3 if there are any.`,
		Example: `  apigw-guardian audit report > report.html
  apigw-guardian audit report --since 2026-10-01 --until 2026-11-01 -o md
  apigw-guardian audit report --audit-log /var/log/kubernetes/audit.log --cluster-name prod-1 > report.html`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.until != "" && !cmd.Flags().Changed("since") {
				until, err := moment("--until", flags.until, time.Now())
				if err != nil {
					return err
				}
				flags.since = until.Add(-reportAge).Format(time.RFC3339)
			}
			return runReport(cmd, shared, flags)
		},
	}
	flags.addTo(cmd, shared)
	since := cmd.Flags().Lookup("since")
	flags.since, since.DefValue = "30d", "30d, before --until"
	cmd.Flags().VarP(choiceOf(&flags.format, report.Formats()...), "output", "o", oneOf(texts(report.Formats())))
	cmd.Flags().StringVar(&flags.clusterName, "cluster-name", "", "name of the cluster in the report (default the kubeconfig's)")
	cmd.Flags().StringArrayVar(&flags.auditLogs, "audit-log", nil,
		"audit log of kube-apiserver to compare with, as audit import reads it; repeat it for the files of all API servers")
	complete(cmd, "output", texts(report.Formats())...)
	return cmd
}

func runReport(cmd *cobra.Command, shared *sharedFlags, flags *reportFlags) error {
	if err := flags.complete(cmd.Context(), shared); err != nil {
		return err
	}
	in, err := flags.read(cmd, shared)
	if err != nil {
		return err
	}
	if err := report.New(in).Write(cmd.OutOrStdout(), flags.format); err != nil {
		return err
	}
	switch {
	case in.BrokenLines > 0:
		return fmt.Errorf("%d lines of the audit log cannot be parsed, and may hide writes: the report says so", in.BrokenLines)
	case in.Log != nil && len(in.Log.Missing) > 0:
		return errNotAsItShould
	}
	return nil
}

// filterOf returns the flags that select some of the records of a time, as a shell reads them.
func filterOf(flags *pflag.FlagSet) string {
	var given []string
	for _, name := range []string{"by-user", "resource", "operation", "outcome", "reason", "unacknowledged"} {
		if flag := flags.Lookup(name); flag.Changed && flag.Value.String() != flag.DefValue {
			given = append(given, "--"+name+"="+text.Quote(flag.Value.String()))
		}
	}
	return strings.Join(given, " ")
}

// read reads what the report is about.
func (f *reportFlags) read(cmd *cobra.Command, shared *sharedFlags) (report.Input, error) {
	origin := shared.origin(f.clusterName)
	in := report.Input{
		Cluster: origin.Cluster, Version: origin.Version, Since: f.Since, Until: f.Until, Made: time.Now(), Place: time.Local,
		Filter: filterOf(cmd.Flags()),
	}
	var source *logFiles
	if len(f.auditLogs) > 0 {
		var err error
		if source, err = readLogs(cmd, shared, f.auditLogs); err != nil {
			return in, fmt.Errorf("--audit-log: %w", err)
		}
	}
	stored, err := shared.records(cmd.Context())
	if err != nil {
		return in, err
	}
	// Read the records after the log: the guard records a write before the API server logs it.
	all, err := stored.List(cmd.Context(), audit.Filter{})
	if err != nil {
		return in, err
	}
	if source != nil {
		in.Log, in.BrokenLines = source.log.Compare(all), source.broken
	}
	for i := range all {
		if f.Match(&all[i]) {
			in.Records = append(in.Records, all[i])
		}
	}
	if len(in.Records) == 0 {
		if err := f.checkNamed(cmd.Context(), shared, stored); err != nil {
			return in, err
		}
	}
	if in.Unlocks, err = allUnlocks(cmd.Context(), shared); err != nil {
		in.UnlocksProblem = err.Error()
	}
	return in, nil
}

// allUnlocks returns the unlocks of the cluster, cleaned.
func allUnlocks(ctx context.Context, shared *sharedFlags) ([]v1alpha1.Unlock, error) {
	client, err := shared.unlocks()
	if err != nil {
		return nil, err
	}
	unlocks, err := client.List(ctx)
	for i := range unlocks {
		audit.CleanUnlock(&unlocks[i])
	}
	return unlocks, err
}

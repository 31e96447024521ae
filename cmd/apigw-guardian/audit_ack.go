// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// maxAckNote is the max length of a note in characters, as in the CustomResourceDefinition.
const maxAckNote = 1024

type ackFlags struct {
	filterFlags
	output outputFlag
	note   string
	dryRun string
}

func newAuditAck(shared *sharedFlags) *cobra.Command {
	flags := &ackFlags{output: outputFlag{more: []string{formatName}}}
	cmd := &cobra.Command{
		Use:   "ack [NAME...] --note TEXT",
		Short: "Acknowledge records: say that you have looked at them, and what you found out",
		Long: `ack adds your acknowledgement to each named record, or to each record that fits the filter and has writes that no user has
acknowledged. NAME is a name, or a part of it that no other record has. The guard denies an acknowledgement in the name of another
user. No acknowledgement can be changed or removed. A record that counts more writes afterwards is unacknowledged again.

You need the ClusterRole apigw-guardian-audit-reviewer.`,
		Example: `  apigw-guardian audit ack 7f3a90c1 --note "a failed deployment, ticket 4711"
  apigw-guardian audit ack --since 24h --by-user ci-bot --note "the pipeline is fixed"
  apigw-guardian audit list --unacknowledged`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := flags.checkWith(names); err != nil {
				return err
			}
			return runAck(cmd, shared, flags, names)
		},
		ValidArgsFunction: completion(shared.recorded(recordName)),
	}
	flags.addTo(cmd, shared)
	flags.output.addTo(cmd)
	cmd.Flags().StringVar(&flags.note, "note", "", fmt.Sprintf("what you found out, up to %d characters (required)", maxAckNote))
	choiceOf(&flags.dryRun, "none", "client", "server").addTo(cmd, "dry-run", "none, client (sends nothing) or server (stores nothing)")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = "server"
	return cmd
}

// checkWith returns an error that wraps errUsage.
func (f *ackFlags) checkWith(names []string) error {
	filtered := f.filterFlags != filterFlags{}
	switch length := utf8.RuneCountInString(f.note); {
	case strings.TrimSpace(f.note) == "":
		return fmt.Errorf("%w: --note must say what you found out", errUsage)
	case length > maxAckNote:
		return fmt.Errorf("%w: --note has %d characters: must be at most %d", errUsage, length, maxAckNote)
	case len(names) == 0 && !filtered:
		return fmt.Errorf("%w: name the records, or give a filter such as --since 24h: see apigw-guardian audit list --unacknowledged", errUsage)
	case len(names) > 0 && filtered:
		return fmt.Errorf("%w: give names or a filter, not both", errUsage)
	case slices.Contains(names, ""):
		return fmt.Errorf("%w: NAME must be the name of a record, see apigw-guardian audit list", errUsage)
	}
	return nil
}

func runAck(cmd *cobra.Command, shared *sharedFlags, flags *ackFlags, names []string) error {
	ctx := cmd.Context()
	stored, records, err := flags.chosen(ctx, shared, names)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		say(cmd.ErrOrStderr(), "No record fits that is not acknowledged.")
	}
	word := store.Word{Note: flags.note, DryRun: flags.dryRun == "server"}
	if word.By, err = stored.User(ctx); err != nil {
		return err
	}
	var done []v1alpha1.AuditRecord
	for i := range records {
		record := &records[i]
		if flags.dryRun != "client" {
			if record, err = stored.Acknowledge(ctx, record, word); err != nil {
				break
			}
		}
		done = append(done, *record)
		if flags.output.format == formatTable {
			mark := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[flags.dryRun]
			say(cmd.OutOrStdout(), nameOf(record)+" acknowledged"+mark)
		}
	}
	if flags.output.format == formatTable {
		return err
	}
	list := &listing{output: flags.output}
	return errors.Join(err, list.print(cmd, done))
}

// chosen returns the named records, or the unacknowledged ones that fit the filter. It returns none if one name is wrong.
func (f *ackFlags) chosen(ctx context.Context, shared *sharedFlags, names []string) (*store.Store, []v1alpha1.AuditRecord, error) {
	if len(names) == 0 {
		f.Unacknowledged = true
		if err := f.complete(ctx, shared); err != nil {
			return nil, nil, err
		}
	}
	stored, err := shared.records(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		records, err := f.listFrom(ctx, shared, stored)
		return stored, audit.Oldest(records), err
	}
	var records []v1alpha1.AuditRecord
	for _, name := range names {
		name = untyped(name)
		record, err := stored.Get(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			record, err = findPart(ctx, stored, name, err)
		}
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(records, func(r v1alpha1.AuditRecord) bool { return r.Name == record.Name }) {
			records = append(records, *record)
		}
	}
	return stored, records, nil
}

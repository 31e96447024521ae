// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

func newAuditShow(shared *sharedFlags) *cobra.Command {
	output := outputFlag{}
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show all that a record says, and what to do about it",
		Long: `show prints all facts of a record, and what to do about it. NAME is its name, or a part of it that no other record has,
such as the one that audit list shows on a narrow terminal.`,
		Example: `  apigw-guardian audit show 20261125t0820-update-7f3a90c1d25e8b6a4410
  apigw-guardian audit show 7f3a90c1 -o yaml`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := shared.records()
			if err != nil {
				return err
			}
			record, err := find(cmd.Context(), store, args[0])
			if err != nil {
				return err
			}
			if output.format == formatTable {
				return screenOf(cmd.OutOrStdout()).Record(cmd.OutOrStdout(), record)
			}
			return output.print(cmd.OutOrStdout(), record, nil)
		},
	}
	output.addTo(cmd)
	return cmd
}

func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("%w: NAME must be the name of one record, see apigw-guardian audit list", errUsage)
	}
	return nil
}

// find returns the record of that name, or the only one whose name has it as a part.
func find(ctx context.Context, stored *store.Store, name string) (*v1alpha1.AuditRecord, error) {
	record, err := stored.Get(ctx, name)
	if !errors.Is(err, store.ErrNotFound) {
		return record, err
	}
	records, listErr := stored.List(ctx, audit.Filter{})
	if listErr != nil {
		return nil, fmt.Errorf("%w; and those there are cannot be listed: %w", err, listErr)
	}
	switch named := audit.Named(records, name); {
	case len(named) == 1:
		return stored.Get(ctx, named[0])
	case len(named) > 1:
		return nil, fmt.Errorf("%d records have %q in their names, such as %s: use a longer part of the name",
			len(named), name, strings.Join(named[:min(len(named), 3)], ", "))
	}
	if near := audit.Near(records, name); len(near) > 0 {
		return nil, fmt.Errorf("%w; near it: %s", err, strings.Join(near, ", "))
	}
	return nil, fmt.Errorf("%w; to see which there are: apigw-guardian audit list", err)
}

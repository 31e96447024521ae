// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/recordstore"
)

func newAudit(shared *sharedFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Review the denied requests",
		Long: `audit reads the records of denied writes to reserved resources, and of those that were let through on purpose, with the
rights of whoever runs it.`,
		Example: `  apigw-guardian audit list --since 24h
  apigw-guardian audit web`,
		Args: noArgs,
	}
	cmd.AddCommand(newAuditImport(shared))
	return cmd
}

// records connects to the audit records of the cluster that the flags name.
func (f *sharedFlags) records() (*recordstore.Store, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	return recordstore.New(config)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"errors"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

const clusterNameHelp = "name of the cluster in exported records (default the kubeconfig's)"

// origin names the cluster in exports: as given, or as the kubeconfig does; "" in a Pod.
func (f *sharedFlags) origin(clusterName string) export.Origin {
	origin := export.Origin{Version: version, Cluster: cmp.Or(clusterName, f.overrides.Context.Cluster)}
	if raw, err := f.clientConfig().RawConfig(); err == nil && origin.Cluster == "" {
		if used := raw.Contexts[cmp.Or(f.overrides.CurrentContext, raw.CurrentContext)]; used != nil && f.overrides.ClusterInfo.Server == "" {
			origin.Cluster = used.Cluster
		}
	}
	origin.Cluster = text.Printable(cmp.Or(origin.Cluster, f.overrides.ClusterInfo.Server), maxClusterName)
	return origin
}

const maxClusterName = 256

func newAuditExport(shared *sharedFlags) *cobra.Command {
	flags := &filterFlags{}
	var clusterName string
	var format export.Format
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the records for another program, oldest first",
		Long: `export writes the records to standard output, in the order of their last writes, oldest first: as JSON
lines, as CSV for a spreadsheet, as events of the Open Cybersecurity Schema Framework (class API Activity), or as CloudEvents.`,
		Example: `  apigw-guardian audit export --format csv --since 30d > denials.csv
  apigw-guardian audit export --format ocsf --since 24h --cluster-name prod-1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			records, err := flags.list(cmd.Context(), shared)
			if err != nil {
				return err
			}
			buffer := bufio.NewWriter(cmd.OutOrStdout())
			return errors.Join(export.Write(buffer, format, shared.origin(clusterName), audit.Oldest(records)), buffer.Flush())
		},
	}
	choiceOf(&format, export.Formats()...).addTo(cmd, "format", oneOf(texts(export.Formats())))
	cmd.Flags().StringVar(&clusterName, "cluster-name", "", clusterNameHelp)
	flags.addTo(cmd, shared)
	return cmd
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// complete makes the words the completions of a flag.
func complete(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// completeFrom completes a flag from the records of the cluster.
func completeFrom(cmd *cobra.Command, shared *sharedFlags, flag string, text func(*v1alpha1.AuditRecord) string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return recorded(cmd.Context(), shared, text)
	})
}

// completeKubeconfig completes the flags that name an entry of the kubeconfig, as kubectl does.
func completeKubeconfig(root *cobra.Command, shared *sharedFlags) {
	for flag, names := range map[string]func(*api.Config) []string{
		clientcmd.FlagContext:      func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.Contexts)) },
		clientcmd.FlagClusterName:  func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.Clusters)) },
		clientcmd.FlagAuthInfoName: func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.AuthInfos)) },
	} {
		_ = root.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			config, err := shared.clientConfig().RawConfig()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return names(&config), cobra.ShellCompDirectiveNoFileComp
		})
	}
}

const (
	// completionTimeout bounds what a press of the tab key waits for.
	completionTimeout = 3 * time.Second
	maxCompletions    = 200
)

// recorded returns the texts of the newest records, each once. An unreachable cluster has none.
func recorded(
	ctx context.Context, shared *sharedFlags, text func(*v1alpha1.AuditRecord) string,
) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	store, err := shared.records(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	records, _ := store.List(ctx, audit.Filter{})
	var texts []string
	for i := range audit.Newest(records, 0) {
		// A word with cobra's mark would be printed as help, and users choose their names.
		if word := text(&records[i]); word != "" && !strings.HasPrefix(word, "_activeHelp_") && !slices.Contains(texts, word) && len(texts) < maxCompletions {
			texts = append(texts, word)
		}
	}
	return texts, cobra.ShellCompDirectiveNoFileComp
}

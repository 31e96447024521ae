// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"iter"
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

// completeFrom completes a flag with what list returns.
func completeFrom(cmd *cobra.Command, flag string, list func(context.Context) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, completion(list)) // the flag exists
}

// completion makes a completion of a list, which may take completionTimeout.
func completion(list func(context.Context) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		return list(ctx), cobra.ShellCompDirectiveNoFileComp
	}
}

// once completes the first argument only.
func once(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// completeKubeconfig completes the flags that name an entry of the kubeconfig, as kubectl does.
func completeKubeconfig(root *cobra.Command, shared *sharedFlags) {
	for flag, names := range map[string]func(api.Config) iter.Seq[string]{
		clientcmd.FlagContext:      func(c api.Config) iter.Seq[string] { return maps.Keys(c.Contexts) },
		clientcmd.FlagClusterName:  func(c api.Config) iter.Seq[string] { return maps.Keys(c.Clusters) },
		clientcmd.FlagAuthInfoName: func(c api.Config) iter.Seq[string] { return maps.Keys(c.AuthInfos) },
	} {
		completeFrom(root, flag, func(context.Context) []string {
			config, _ := shared.clientConfig().RawConfig() // with an error, it has no entry
			return slices.Sorted(names(config))
		})
	}
}

const (
	// completionTimeout bounds what a press of the tab key waits for.
	completionTimeout = 3 * time.Second
	maxCompletions    = 200
)

// recorded lists the texts of the newest records, each once. An unreachable cluster has none.
func (f *sharedFlags) recorded(text func(*v1alpha1.AuditRecord) string) func(context.Context) []string {
	return func(ctx context.Context) []string {
		store, err := f.records(ctx)
		if err != nil {
			return nil
		}
		records, _ := store.List(ctx, audit.Filter{})
		var texts []string
		for i := range audit.Newest(records, 0) {
			word := text(&records[i])
			isHelp := strings.HasPrefix(word, "_activeHelp_") // cobra's mark: users choose their names
			if word != "" && !isHelp && !slices.Contains(texts, word) && len(texts) < maxCompletions {
				texts = append(texts, word)
			}
		}
		return texts
	}
}

func recordName(r *v1alpha1.AuditRecord) string { return r.Name }
func userName(r *v1alpha1.AuditRecord) string   { return r.Spec.User.Name }

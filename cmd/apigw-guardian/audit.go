// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
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
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: slip,
	}
	cmd.AddCommand(
		newAuditList(shared),
		newAuditShow(shared),
		newAuditSummary(shared),
		newAuditExport(shared),
		newAuditImport(shared),
		newAuditWeb(shared),
	)
	return cmd
}

// records connects to the audit records of the cluster that the flags name.
func (f *sharedFlags) records() (*store.Store, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	// client-go's own five requests a second would make a person wait for the pages of a long list. The API server has limits of
	// its own.
	config.QPS = -1
	return store.New(config)
}

// filterFlags pick records.
type filterFlags struct {
	since, until               string
	user, resource             string
	operation, outcome, reason string
}

func (f *filterFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.since, "since", "", "only writes since then: how long ago (30m, 24h, 7d), or a time of RFC 3339")
	flags.StringVar(&f.until, "until", "", "only writes before then, given likewise")
	flags.StringVar(&f.user, "user", "", "only users whose name contains this")
	flags.StringVar(&f.resource, "resource", "", "only resources whose type, namespace or name contains this")
	flags.StringVar(&f.operation, "operation", "", "only this operation: "+oneOf(texts(audit.Operations())))
	flags.StringVar(&f.outcome, "outcome", "", "only this outcome: "+oneOf(texts(v1alpha1.Outcomes())))
	flags.StringVar(&f.reason, "reason", "", "only this reason: "+oneOf(reasons()))
}

// filter is the flags, checked.
func (f *filterFlags) filter(now time.Time) (audit.Filter, error) {
	filter := audit.Filter{User: f.user, Resource: f.resource, Operation: f.operation, Outcome: f.outcome, Reason: f.reason}
	for _, bound := range []struct {
		flag, text string
		into       *time.Time
	}{{"--since", f.since, &filter.Since}, {"--until", f.until, &filter.Until}} {
		if bound.text == "" {
			continue
		}
		at, err := audit.ParseMoment(bound.text, now)
		if err != nil {
			return audit.Filter{}, fmt.Errorf("%w: %s %q: %w", errUsage, bound.flag, bound.text, err)
		}
		*bound.into = at
	}
	if !filter.Until.IsZero() && filter.Since.After(filter.Until) {
		return audit.Filter{}, fmt.Errorf("%w: --since %s is after --until %s: nothing lies in between", errUsage, f.since, f.until)
	}
	for _, word := range []struct {
		flag, text string
		allowed    []string
	}{
		{"--operation", f.operation, texts(audit.Operations())},
		{"--outcome", f.outcome, texts(v1alpha1.Outcomes())},
		{"--reason", f.reason, reasons()},
	} {
		if word.text != "" && !hasWord(word.allowed, word.text) {
			return audit.Filter{}, fmt.Errorf("%w: %s %q: give %s", errUsage, word.flag, word.text, oneOf(word.allowed))
		}
	}
	return filter, nil
}

// reasons are those of the guard's decisions, of a flood of them, of tampering, and of what audit import finds.
func reasons() []string {
	return slices.Concat(texts(policy.RecordedReasons()), audit.TamperedReasons(),
		[]string{audit.FloodReason, apilog.NotAsked, apilog.NotReached})
}

// texts turns a closed list into words.
func texts[T ~string](list []T) []string {
	words := make([]string, 0, len(list))
	for _, entry := range list {
		words = append(words, string(entry))
	}
	return words
}

// hasWord compares as the filter does.
func hasWord(words []string, word string) bool {
	for _, entry := range words {
		if strings.EqualFold(entry, word) {
			return true
		}
	}
	return false
}

// sayNone tells that there is nothing to show, beside the output, which stays empty for scripts.
func sayNone(stderr io.Writer, filter audit.Filter) {
	if filter == (audit.Filter{}) {
		say(stderr, "No denials are recorded.")
		return
	}
	say(stderr, "No denials fit the filter.")
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func newAudit(shared *sharedFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Review the denied requests",
		Long: `audit reads the records of writes to reserved resources that the guard denied, or allowed with a record. It uses your
permissions.`,
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

func (f *sharedFlags) records() (*store.Store, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // client-go's five requests a second would delay the pages of a long list
	return store.New(config)
}

type filterFlags struct {
	since, until string
	audit.Filter
}

func (f *filterFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.since, "since", "", "only writes since then: an age (30m, 24h, 7d) or an RFC 3339 time")
	flags.StringVar(&f.until, "until", "", "only writes before then: an age or an RFC 3339 time")
	flags.StringVar(&f.User, "user", "", "only users whose name contains this")
	flags.StringVar(&f.Resource, "resource", "", "only resources whose type, namespace or name contains this")
	flags.StringVar(&f.Operation, "operation", "", "only this operation: "+oneOf(texts(reserved.Operations())))
	flags.StringVar(&f.Outcome, "outcome", "", "only this outcome: "+oneOf(texts(v1alpha1.Outcomes())))
	flags.StringVar(&f.Reason, "reason", "", "only this reason: "+oneOf(reasons()))
}

func (f *filterFlags) list(ctx context.Context, shared *sharedFlags) ([]v1alpha1.AuditRecord, error) {
	if err := f.check(time.Now()); err != nil {
		return nil, err
	}
	store, err := shared.records()
	if err != nil {
		return nil, err
	}
	return store.List(ctx, f.Filter)
}

// check completes the filter. The error wraps errUsage.
func (f *filterFlags) check(now time.Time) (err error) {
	if f.Since, err = moment("--since", f.since, now); err != nil {
		return err
	}
	if f.Until, err = moment("--until", f.until, now); err != nil {
		return err
	}
	if !f.Until.IsZero() && f.Since.After(f.Until) {
		return fmt.Errorf("%w: --since %s is after --until %s: no time is in between", errUsage, f.since, f.until)
	}
	for _, word := range []struct {
		flag, text string
		allowed    []string
	}{
		{"--operation", f.Operation, texts(reserved.Operations())},
		{"--outcome", f.Outcome, texts(v1alpha1.Outcomes())},
		{"--reason", f.Reason, reasons()},
	} {
		isWord := func(allowed string) bool { return strings.EqualFold(allowed, word.text) } // as the filter compares
		if word.text != "" && !slices.ContainsFunc(word.allowed, isWord) {
			return fmt.Errorf("%w: %s %q: must be %s", errUsage, word.flag, word.text, oneOf(word.allowed))
		}
	}
	return nil
}

// moment reads an age, such as 24h or 7d, or an RFC 3339 time. It returns the zero time for "".
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	age, err := model.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %s %q: must be a duration (30m, 24h, 7d, 1d12h) or a time such as 2026-11-25T08:20:00Z",
			errUsage, flag, text)
	}
	return now.Add(-time.Duration(age)), nil
}

// reasons are those of decisions, floods, tampering, retirement, rotation and audit import.
func reasons() []string {
	return slices.Concat(texts(policy.RecordedReasons()), audit.LeaderReasons(),
		[]string{audit.Retirement, audit.Rotation, audit.FloodReason, apilog.NotAsked, apilog.NotReached})
}

func texts[T ~string](list []T) []string {
	words := make([]string, 0, len(list))
	for _, word := range list {
		words = append(words, string(word))
	}
	return words
}

// sayNone writes that there is no record. The output stays empty for scripts.
func (f *filterFlags) sayNone(stderr io.Writer) {
	if f.Filter == (audit.Filter{}) {
		say(stderr, "No denials are recorded.")
		return
	}
	say(stderr, "No denials fit the filter.")
}

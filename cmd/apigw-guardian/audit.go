// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

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
		Short: "Review denied requests, and those allowed with a record",
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
		newAuditAck(shared),
		newAuditReport(shared),
		newAuditWeb(shared),
	)
	return cmd
}

// records connects to the records of a cluster, which must answer in time.
func (f *sharedFlags) records(ctx context.Context) (*store.Store, error) {
	config, err := f.contactedConfig(ctx)
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

func (f *filterFlags) addTo(cmd *cobra.Command, shared *sharedFlags) {
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "only writes since then: an age (30m, 24h, 7d, 1w), a date or a time")
	flags.StringVar(&f.until, "until", "", "only writes before then: an age, a date or a time")
	flags.StringVar(&f.User, "by-user", "", "only users whose name, or extra, contains this")
	flags.StringVar(&f.Resource, "resource", "",
		"only resources of this TYPE, TYPE/NAME or TYPE/NAMESPACE/NAME, as kubectl accepts them, or with this part of a name")
	only := func(flag string, value *string, words []string) {
		choice[string]{value, words}.addTo(cmd, flag, "only this "+flag+": "+oneOf(words))
	}
	only("operation", &f.Operation, texts(reserved.Operations()))
	only("outcome", &f.Outcome, texts(v1alpha1.Outcomes()))
	only("reason", &f.Reason, reasons())
	flags.BoolVar(&f.Unacknowledged, "unacknowledged", false, "only records with writes that no user has acknowledged")
	complete(cmd, "since", "1h", "24h", "7d", "1w", "30d")
	completeFrom(cmd, "by-user", shared.recorded(userName))
	completeFrom(cmd, "resource", shared.recorded(func(r *v1alpha1.AuditRecord) string { return r.Spec.Resource }))
}

func (f *filterFlags) list(ctx context.Context, shared *sharedFlags) ([]v1alpha1.AuditRecord, error) {
	if err := f.complete(ctx, shared); err != nil {
		return nil, err
	}
	store, err := shared.records(ctx)
	if err != nil {
		return nil, err
	}
	return f.listFrom(ctx, shared, store)
}

// listFrom lists the records of a complete filter.
func (f *filterFlags) listFrom(ctx context.Context, shared *sharedFlags, store *store.Store) ([]v1alpha1.AuditRecord, error) {
	records, err := store.List(ctx, f.Filter)
	if err != nil || len(records) > 0 {
		return records, err
	}
	return nil, f.checkNamed(ctx, shared, store)
}

// checkNamed returns an error that wraps errUsage if neither a record nor a reserved resource fits what --resource names: an empty list
// would read as an all-clear.
func (f *filterFlags) checkNamed(ctx context.Context, shared *sharedFlags, store *store.Store) error {
	named := audit.Filter{Resource: f.Resource, Object: f.Object}
	if named == (audit.Filter{}) {
		return nil
	}
	if records, err := store.List(ctx, named); err != nil || len(records) > 0 {
		return err
	}
	return shared.checkWithSet(ctx, func(set *reserved.Set) error {
		if isReserved(set, named) {
			return nil
		}
		return notReserved(set, cmp.Or(named.Resource, named.Object.String()))
	})
}

// complete reads the flags into the filter. The error wraps errUsage for a wrong value.
func (f *filterFlags) complete(ctx context.Context, shared *sharedFlags) error {
	if err := f.check(time.Now()); err != nil {
		return err
	}
	if f.Resource == "" {
		return nil
	}
	return shared.checkWithSet(ctx, func(set *reserved.Set) error { return readResource(set, &f.Filter) })
}

// check completes the times of the filter. The error wraps errUsage.
func (f *filterFlags) check(now time.Time) (err error) {
	if f.Since, err = moment("--since", f.since, now); err != nil {
		return err
	}
	if f.Until, err = moment("--until", f.until, now); err != nil {
		return err
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return fmt.Errorf("%w: --since %s is not before --until %s: no time is in between", errUsage, f.since, f.until)
	}
	return nil
}

// moment reads an age, such as 24h or 1w, an RFC 3339 time, or a date or time of the time zone of now. It returns the zero time for "".
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{
		time.RFC3339, time.DateOnly, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04",
	} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	age, err := model.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %s %q: must be a duration (30m, 24h, 7d, 1w), a date (2026-11-25) or a time (2026-11-25T08:20:00Z)",
			errUsage, flag, text)
	}
	return now.Add(-time.Duration(age)), nil
}

// reasons are those of decisions, floods, tampering, retirement, rotation and audit import.
func reasons() []string {
	return slices.Concat(texts(policy.RecordedReasons()), audit.LeaderReasons(),
		[]string{audit.Retirement, audit.Rotation, audit.FloodReason, audit.DeniedByPolicy, apilog.NotAsked, apilog.NotReached})
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
		say(stderr, "No request is recorded.")
		return
	}
	if f.Since.After(time.Now().Add(-time.Second)) { // not refused: the guard's clock may be ahead
		say(stderr, "No record fits the filter: --since "+f.since+" is not in the past.")
		return
	}
	say(stderr, "No record fits the filter.")
}

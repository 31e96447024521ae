// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/terminal"
)

// recordList is the result of audit list, as JSON and YAML: what kubectl get prints.
type recordList struct {
	metav1.TypeMeta
	Metadata metav1.ListMeta        `json:"metadata"`
	Items    []v1alpha1.AuditRecord `json:"items"`
}

type listing struct {
	filterFlags
	output outputFlag
	limit  int
	origin export.Origin
	watch  bool
	fleet  fleet
}

func newAuditList(shared *sharedFlags) *cobra.Command {
	list := &listing{output: outputFlag{more: []string{formatWide, formatCSV, formatName}}}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List denied requests, and those allowed with a record, newest first",
		Long: `list prints a row for each record, newest first. Equal requests within ten minutes share a record, which counts them. On a
terminal, the table fits its width, a ✗ marks what was denied or has passed the guard, and audit show accepts the shortened names.
Elsewhere, list shortens and marks nothing. To list denials alone: --outcome Denied`,
		Example: `  apigw-guardian audit list --since 24h
  apigw-guardian audit list --by-user alice --outcome Denied -o wide
  apigw-guardian audit list --since 7d --limit 100 -o json
  apigw-guardian audit list --watch`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := list.check(); err != nil {
				return err
			}
			if list.fleet.isSet() {
				return list.ofFleet(cmd)
			}
			if list.watch {
				return list.follow(cmd, shared)
			}
			records, err := list.list(cmd.Context(), shared)
			if err != nil {
				return err
			}
			list.origin = shared.origin("")
			return list.print(cmd, records)
		},
	}
	list.addTo(cmd, shared)
	list.output.addTo(cmd)
	list.fleet.addTo(cmd, shared, &list.output, fleetLimit)
	cmd.Flags().BoolVar(&list.output.noHeaders, "no-headers", false, "leave the titles of columns out, with -o table, wide or custom-columns")
	// kubectl accepts it for objects without a namespace too.
	cmd.Flags().BoolP("all-namespaces", "A", false, "no effect: records have no namespace")
	_ = cmd.Flags().MarkHidden("all-namespaces")
	cmd.Flags().IntVar(&list.limit, "limit", 0, "max number of records, the newest first (default 0, all)")
	cmd.Flags().BoolVarP(&list.watch, "watch", "w", false,
		"continue with each record that is new or counts more, oldest first, until Ctrl-C; as JSON, one record per line")
	return cmd
}

// check returns an error that wraps errUsage.
func (l *listing) check() error {
	if l.limit < 0 {
		return fmt.Errorf("%w: --limit %d: must be positive, or 0 for all", errUsage, l.limit)
	}
	if l.watch && l.fleet.isSet() {
		return fmt.Errorf("%w: --watch goes with one context", errUsage)
	}
	if l.watch && l.output.format != formatTable && l.output.format != formatWide && l.output.format != formatJSON {
		return fmt.Errorf("%w: --watch goes with -o table, wide or json, not with -o %s", errUsage, l.output.format)
	}
	return nil
}

func (l *listing) print(cmd *cobra.Command, records []v1alpha1.AuditRecord) error {
	records = audit.Newest(records, l.limit)
	out := cmd.OutOrStdout()
	switch l.output.format {
	case formatTable, formatWide:
		if len(records) == 0 {
			l.sayNone(cmd.ErrOrStderr())
			return nil
		}
		return terminal.NewTable(screenOf(out), l.layout(), records).Write(out)
	case formatName:
		for i := range records {
			say(out, nameOf(&records[i]))
		}
		return nil
	case formatCSV:
		return export.Write(out, export.CSV, l.origin, records)
	}
	return l.output.print(out, listOf(records), nil)
}

func (l *listing) layout() terminal.Layout {
	return terminal.Layout{Wide: l.output.format == formatWide, Headless: l.output.noHeaders}
}

func listOf(records []v1alpha1.AuditRecord) recordList {
	for i := range records {
		records[i].TypeMeta = audit.TypeMeta()
	}
	return recordList{TypeMeta: metav1.TypeMeta{Kind: "List", APIVersion: "v1"}, Items: append([]v1alpha1.AuditRecord{}, records...)}
}

// ofFleet lists the records of several contexts in one table. --limit is that of each.
func (l *listing) ofFleet(cmd *cobra.Command) error {
	read := func(ctx context.Context, shared *sharedFlags) (recordList, error) {
		own := l.filterFlags // the filter is completed for each cluster
		records, err := own.list(ctx, shared)
		return listOf(audit.Newest(records, l.limit)), err
	}
	return ofFleet(cmd, &l.fleet, read, func(p *printer, members []member[recordList]) {
		var all []v1alpha1.AuditRecord
		for _, m := range members {
			if m.Result == nil {
				continue
			}
			for _, record := range m.Result.Items {
				record.Namespace = m.Context // a record has no namespace
				all = append(all, record)
			}
		}
		if len(all) == 0 {
			if worst(members) == nil { // else the absence of records says nothing
				l.sayNone(cmd.ErrOrStderr())
			}
			return
		}
		layout := l.layout()
		layout.Contexts = true
		p.err = errors.Join(p.err, terminal.NewTable(screenOf(cmd.OutOrStdout()), layout, audit.Newest(all, 0)).Write(cmd.OutOrStdout()))
	})
}

// untyped returns NAME of TYPE/NAME, as nameOf and users of kubectl write it.
func untyped(text string) string {
	kind, name, isTyped := strings.Cut(text, "/")
	kind, group, _ := strings.Cut(strings.ToLower(kind), ".")
	isRecord := slices.Contains([]string{"auditrecord", "auditrecords", "denial", "denials"}, kind)
	if isTyped && isRecord && (group == "" || group == v1alpha1.Group) {
		return name
	}
	return text
}

// nameOf is what kubectl get -o name prints.
func nameOf(record *v1alpha1.AuditRecord) string {
	return "auditrecord." + v1alpha1.Group + "/" + record.Name
}

func (l *listing) follow(cmd *cobra.Command, shared *sharedFlags) error {
	if err := l.complete(cmd.Context(), shared); err != nil {
		return err
	}
	records, err := shared.records(cmd.Context())
	if err != nil {
		return err
	}
	// The watch reports a lost connection, so the libraries must not.
	ctx, fail := context.WithCancelCause(klog.NewContext(cmd.Context(), logr.Discard()))
	defer fail(nil)
	w := terminal.NewWatch(terminal.WatchOptions{
		Filter: l.Filter, Limit: l.limit, Screen: screenOf(cmd.OutOrStdout()),
		Wide: l.output.format == formatWide, Headless: l.output.noHeaders, JSON: l.output.format == formatJSON,
		Out: cmd.OutOrStdout(), Warnings: cmd.ErrOrStderr(), Fail: fail,
	})
	err = records.Follow(ctx, store.Follower{Changed: w.Changed, Removed: w.Removed, Synced: w.Synced, Reached: w.Reached})
	if err == nil && cmd.Context().Err() == nil {
		return context.Cause(ctx)
	}
	return err
}

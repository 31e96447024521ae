// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

func newAuditShow(shared *sharedFlags) *cobra.Command {
	output := outputFlag{more: []string{formatName}}
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show all that a record says, and what to do about it; or an unlock, and the writes under it",
		Long: `show prints all facts of a record, and what to do about it. NAME is its name, or a part of it that no other record has,
such as the one that audit list shows on a narrow terminal. If NAME is the name of an unlock, show prints the unlock and the records
of the writes under it.`,
		Example: `  apigw-guardian audit show 20261125t0820-update-7f3a90c1d25e8b6a4410
  apigw-guardian audit show 7f3a90c1 -o yaml
  apigw-guardian audit show unlock-x7k2p`,
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(cmd, shared, &output, untyped(args[0]))
		},
		ValidArgsFunction: once(completion(shared.recorded(recordName))),
	}
	output.addTo(cmd)
	return cmd
}

func show(cmd *cobra.Command, shared *sharedFlags, output *outputFlag, name string) error {
	stored, err := shared.records(cmd.Context())
	if err != nil {
		return err
	}
	record, err := stored.Get(cmd.Context(), name)
	if errors.Is(err, store.ErrNotFound) {
		found, unlockErr := findUnlock(cmd.Context(), shared, stored, name)
		switch {
		case unlockErr != nil:
			return unlockErr
		case found != nil:
			return printUnlocked(cmd.OutOrStdout(), output, found)
		}
		record, err = findPart(cmd.Context(), stored, name, err)
	}
	if err != nil {
		return err
	}
	switch output.format {
	case formatTable:
		return screenOf(cmd.OutOrStdout()).Record(cmd.OutOrStdout(), record)
	case formatName:
		say(cmd.OutOrStdout(), nameOf(record))
		return nil
	}
	record.TypeMeta = audit.TypeMeta()
	return output.print(cmd.OutOrStdout(), record, nil)
}

// unlocked is an Unlock and the writes under it.
type unlocked struct {
	// Unlock is nil if it is deleted, or if the caller may not read it.
	Unlock  *v1alpha1.Unlock       `json:"unlock,omitempty"`
	Records []v1alpha1.AuditRecord `json:"records"`
	name    string
}

// unlocks returns a client that reads unlocks. It does not call the API server.
func (f *sharedFlags) unlocks() (*unlock.Client, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	return unlock.NewClient(config, guardian.Namespace)
}

// findUnlock returns nil if there is neither an Unlock of that name nor a record that has it. The records outlive the Unlock.
func findUnlock(ctx context.Context, shared *sharedFlags, stored *store.Store, name string) (*unlocked, error) {
	if len(content.IsPathSegmentName(name)) > 0 {
		return nil, nil //nolint:nilnil // no Unlock can have this name
	}
	client, err := shared.unlocks()
	if err != nil {
		return nil, err
	}
	found := &unlocked{name: name}
	found.Unlock, err = client.Get(ctx, name)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return nil, err
	}
	records, err := stored.List(ctx, audit.Filter{Unlock: name})
	if err != nil || found.Unlock == nil && len(records) == 0 {
		return nil, err
	}
	if found.Unlock != nil {
		audit.CleanUnlock(found.Unlock)
	}
	found.Records = append([]v1alpha1.AuditRecord{}, audit.Newest(records, 0)...)
	return found, nil
}

func printUnlocked(out io.Writer, output *outputFlag, found *unlocked) error {
	switch output.format {
	case formatName:
		say(out, "unlock."+v1alpha1.Group+"/"+found.name)
		return nil
	case formatTable:
		return screenOf(out).Unlock(out, found.name, found.Unlock, found.Records)
	}
	return output.print(out, found, nil)
}

func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return fmt.Errorf("%w: NAME must be the name of one record or unlock, see apigw-guardian audit list", errUsage)
	}
	return nil
}

// findPart returns the only record whose name has the part. err says that no record has it as its name.
func findPart(ctx context.Context, stored *store.Store, name string, err error) (*v1alpha1.AuditRecord, error) {
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

// unlockFlags are those of unlock, lock and unlock approve.
type unlockFlags struct {
	shared     *sharedFlags
	namespace  string
	output     outputFlag
	spec       v1alpha1.UnlockSpec
	operations []string
	duration   time.Duration
}

func newUnlock(shared *sharedFlags) *cobra.Command {
	f := &unlockFlags{shared: shared}
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "Allow users to change reserved resources for a limited time",
		Long: `unlock creates an Unlock, and returns once every running replica of the guard honours it. Every write under it is recorded.
You need the ClusterRole apigw-guardian-unlocker or its permissions.`,
		Example: `  apigw-guardian unlock --reason "add a rule, ticket 4711" --for 10m
  apigw-guardian unlock --reason "replace the binding" --for 5m --operation UPDATE,DELETE --user alice \
    --resource clusterrolebindings/apigw-ingress-clusterrole-binding`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.open(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.spec.Reason, "reason", "", "why the change is made, 10 to 500 characters (required)")
	flags.DurationVar(&f.duration, "for", 10*time.Minute, "time until the unlock ends")
	flags.StringVar(&f.spec.Reservation, "reservation", guardian.Reservation, "name of the reservation")
	flags.StringSliceVar(&f.spec.Resources, "resource", nil, "resources that may be changed, such as clusterroles/NAME (default all)")
	flags.StringSliceVar(&f.operations, "operation", []string{string(admissionv1.Update)}, "operations: CREATE, UPDATE or DELETE")
	// No list: a comma may be part of a name.
	flags.StringArrayVar(&f.spec.Users, "user", nil, "exact name of a user who may write, can be repeated (default you)")
	choiceOf(&f.spec.OnEnd, v1alpha1.OnEndReport, v1alpha1.OnEndRestore).addTo(cmd, "on-end",
		"what the leader does with the changes when the unlock ends: report, or restore the manifests")
	complete(cmd, "operation", texts(reserved.Operations())...)
	completeFrom(cmd, "resource", f.reserved)
	completeFrom(cmd, "user", shared.recorded(userName))
	complete(cmd, "for", "5m", "10m", "30m", "1h")
	f.addTo(cmd)
	cmd.AddCommand(newApprove(shared))
	return cmd
}

func newApprove(shared *sharedFlags) *cobra.Command {
	f := &unlockFlags{shared: shared}
	cmd := &cobra.Command{
		Use:     "approve NAME",
		Short:   "Approve an unlock that another user requests",
		Example: "  apigw-guardian unlock approve unlock-x7k2p",
		Args:    oneUnlock,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.change(cmd, args[0], (*unlock.Client).Approve, v1alpha1.UnlockOpen)
		},
		ValidArgsFunction: once(completion(f.names)),
	}
	f.addTo(cmd)
	return cmd
}

func newLock(shared *sharedFlags) *cobra.Command {
	f := &unlockFlags{shared: shared}
	cmd := &cobra.Command{
		Use:   "lock NAME",
		Short: "Close an unlock before its end",
		Long:  `lock closes an Unlock, and returns once no running replica of the guard honours it.`,
		Example: `  apigw-guardian lock unlock-x7k2p
  kubectl get unlocks`,
		Args: oneUnlock,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.change(cmd, args[0], (*unlock.Client).Close, v1alpha1.UnlockClosed, v1alpha1.UnlockInvalid)
		},
		ValidArgsFunction: once(completion(f.names)),
	}
	f.addTo(cmd)
	return cmd
}

// reserved lists the reserved resources.
func (f *unlockFlags) reserved(ctx context.Context) []string {
	set, err := f.shared.set()
	if cluster, failed := f.shared.cluster(ctx, f.namespace); failed == nil {
		set = cluster.Set
	} else if err != nil {
		return nil
	}
	var names []string
	for _, resource := range set.Resources() {
		names = append(names, resource.String())
	}
	return names
}

// names lists the unlocks that are not over.
func (f *unlockFlags) names(ctx context.Context) []string {
	config, err := f.shared.contactedConfig(ctx)
	if err != nil {
		return nil
	}
	client, err := unlock.NewClient(config, f.namespace)
	if err != nil {
		return nil
	}
	unlocks, _ := client.List(ctx)
	var names []string
	for i := range unlocks {
		audit.CleanUnlock(&unlocks[i])
		if !unlocks[i].Status.State.IsOver() {
			names = append(names, unlocks[i].Name+"\t"+unlocks[i].Spec.Reason)
		}
	}
	return names
}

func oneUnlock(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: %s needs the name of one unlock: list them with: kubectl get unlocks", errUsage, cmd.CommandPath())
	}
	return nil
}

func (f *unlockFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	f.output.addTo(cmd)
}

func (f *unlockFlags) open(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	cluster, c, err := f.connect(cmd.Context())
	if err != nil {
		return err
	}
	f.resolve(cluster.Set)
	created, err := c.Open(cmd.Context(), f.spec, f.duration)
	if err != nil {
		return err
	}
	return f.await(cmd, c, created.Name, v1alpha1.UnlockOpen, v1alpha1.UnlockPending)
}

// resolve completes the names of resources.
func (f *unlockFlags) resolve(set *reserved.Set) {
	for i, name := range f.spec.Resources {
		f.spec.Resources[i] = set.FullName(name)
	}
}

// check completes the spec.
func (f *unlockFlags) check() error {
	switch {
	case !policy.IsReason(f.spec.Reason):
		return errors.New("--reason: must have 10 to 500 characters")
	case f.duration < time.Second:
		return fmt.Errorf("--for %s: must be at least 1s", f.duration)
	}
	for _, operation := range f.operations {
		if operation := admissionv1.Operation(strings.ToUpper(operation)); slices.Contains(reserved.Operations(), operation) {
			f.spec.Operations = append(f.spec.Operations, operation)
			continue
		}
		return fmt.Errorf("--operation %q: must be CREATE, UPDATE or DELETE", operation)
	}
	return nil
}

func (f *unlockFlags) connect(ctx context.Context) (live.Cluster, *unlock.Client, error) {
	cluster, err := f.shared.cluster(ctx, f.namespace)
	if err != nil {
		return live.Cluster{}, nil, err
	}
	c, err := unlock.NewClient(cluster.Config, f.namespace)
	return cluster, c, err
}

// change changes an Unlock and waits for the states.
func (f *unlockFlags) change(
	cmd *cobra.Command, name string,
	change func(*unlock.Client, context.Context, string) (*v1alpha1.Unlock, error), states ...v1alpha1.UnlockState,
) error {
	_, c, err := f.connect(cmd.Context())
	if err != nil {
		return err
	}
	if _, err := change(c, cmd.Context(), name); err != nil {
		return err
	}
	return f.await(cmd, c, name, states...)
}

func (f *unlockFlags) await(cmd *cobra.Command, c *unlock.Client, name string, states ...v1alpha1.UnlockState) error {
	seen, err := c.Await(cmd.Context(), name, states...)
	if seen == nil {
		return err
	}
	audit.CleanUnlock(seen)
	printErr := f.output.print(cmd.OutOrStdout(), seen, func(p *printer) { printUnlock(p, seen) })
	return errors.Join(err, printErr)
}

func printUnlock(p *printer, u *v1alpha1.Unlock) {
	spec := &u.Spec
	end := clock(spec.ExpiresAt)
	switch {
	case spec.Closed:
		p.linef("Locked %s: unlock %s is closed", spec.Reservation, u.Name)
		return
	case u.Status.State == v1alpha1.UnlockPending:
		p.linef("Unlock %s waits for the approval by a second user", u.Name)
		p.line("To approve it: apigw-guardian unlock approve " + u.Name)
	default:
		p.linef("Unlocked %s until %s", spec.Reservation, end)
	}
	resources, operations := spec.Resources, []string{}
	if len(resources) == 0 {
		resources = []string{"all"}
	}
	for _, operation := range spec.Allowed() {
		operations = append(operations, string(operation))
	}
	p.row("  Users:", strings.Join(spec.Subjects(), ", "))
	p.row("  Resources:", strings.Join(resources, ", "))
	p.row("  Operations:", strings.Join(operations, ", "))
	p.row("  Reason:", spec.Reason)
	if spec.OnEnd == v1alpha1.OnEndRestore {
		p.row("  On end:", "the leader restores the manifests")
	}
	p.line("To close it: apigw-guardian lock " + u.Name)
}

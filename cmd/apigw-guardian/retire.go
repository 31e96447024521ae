// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

// errNotConfirmed says that the user did not type the name of the reservation.
var errNotConfirmed = errors.New("not confirmed, nothing was changed")

// revocationFlags are those of retire and rotate.
type revocationFlags struct {
	shared      *sharedFlags
	word        string
	namespace   string
	reservation string
	output      outputFlag
	options     authorize.Revocation
	yes, dryRun bool
}

func newRetire(shared *sharedFlags) *cobra.Command {
	f := &revocationFlags{shared: shared, word: "retire"}
	cmd := &cobra.Command{
		Use:   f.word,
		Short: "Revoke the authorization for good, and prove that its credential is refused",
		Long: `retire shows what it will delete and who may still need it, and asks for the name of the reservation. Then it opens an unlock
for you, deletes the binding, the token Secrets, the ServiceAccount and the ClusterRole, waits until the API server refuses
the tokens, and records it. The guard then denies that the resources are created, until you run authorize --again.
If it is interrupted, run it again: it finishes, and proves.`,
		Example: `  apigw-guardian retire --dry-run
  apigw-guardian retire --yes --reason "API Gateway ends on 30 June"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, f.retire) },
	}
	cmd.Flags().BoolVar(&f.options.KeepClusterRole, "keep-clusterrole", false, "leave the ClusterRole for others who are bound to it")
	f.addTo(cmd)
	return cmd
}

func (f *revocationFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	flags.StringVar(&f.reservation, "reservation", guardian.Reservation, "name of the reservation")
	flags.StringVar(&f.options.Reason, "reason", "", `why, for the unlock and the record (default "`+f.word+` RESERVATION")`)
	flags.DurationVar(&f.options.Duration, "for", 10*time.Minute, "time until the unlock ends")
	flags.DurationVar(&f.options.Wait, "timeout", authorize.DefaultWait, "time limit for each deletion and each proof")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only print what would be deleted, and who may still need it")
	f.output.addTo(cmd)
}

// run prints the plan, asks, and acts.
func (f *revocationFlags) run(cmd *cobra.Command, act func(*cobra.Command, *authorize.Authorizer) error) error {
	terminal, isFile := cmd.InOrStdin().(*os.File)
	isTerminal := isFile && term.IsTerminal(int(terminal.Fd()))
	switch {
	case f.options.Wait <= 0 || f.options.Duration < time.Second:
		return fmt.Errorf("%w: --timeout must be positive, and --for at least 1s", errUsage)
	case !f.yes && !f.dryRun && !isTerminal:
		return fmt.Errorf("%w: %s asks for a confirmation, and standard input is no terminal: add --yes, or --dry-run", errUsage, f.word)
	}
	cluster, err := f.shared.cluster(cmd.Context(), f.namespace)
	if err != nil {
		return err
	}
	if f.options.Reservation = cluster.Set.Reservation(f.reservation); f.options.Reservation == nil {
		return fmt.Errorf("%w: --reservation: no reservation is called %q", errUsage, f.reservation)
	}
	if f.options.Reason == "" {
		f.options.Reason = f.word + " " + f.reservation
	}
	authorizer := authorize.New(cluster)
	if f.dryRun {
		plan, err := authorizer.Plan(cmd.Context(), f.options)
		if err != nil {
			return err
		}
		return f.output.print(cmd.OutOrStdout(), plan, func(p *printer) { printPlan(p, plan) })
	}
	if err := f.confirm(cmd, authorizer); err != nil {
		return err
	}
	if f.options.Unlocks, err = unlock.NewClient(cluster.Config, f.namespace); err != nil {
		return err
	}
	if f.options.Records, err = store.New(cluster.Config); err != nil {
		return err
	}
	if f.output.format == formatTable {
		f.options.Report = func(step authorize.Step) { say(cmd.OutOrStdout(), step.String()) }
	}
	return act(cmd, authorizer)
}

// confirm shows the plan, and asks the user to type the name of the reservation. With --yes it only shows the plan, to people.
func (f *revocationFlags) confirm(cmd *cobra.Command, authorizer *authorize.Authorizer) error {
	if f.yes && f.output.format != formatTable {
		return nil
	}
	plan, err := authorizer.Plan(cmd.Context(), f.options)
	switch {
	case f.yes && apierrors.IsForbidden(err):
		say(cmd.ErrOrStderr(), "Warning: who may still need it is unknown: "+err.Error())
		return nil
	case err != nil:
		return err
	}
	err = new(outputFlag).print(cmd.ErrOrStderr(), plan, func(p *printer) { printPlan(p, plan) })
	if err != nil || f.yes {
		return err
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "To %s %s, type %s: ", f.word, f.options.Reservation.Owner, f.reservation)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if strings.TrimSpace(answer) != f.reservation {
		return errors.Join(errNotConfirmed, err)
	}
	return nil
}

func (f *revocationFlags) retire(cmd *cobra.Command, authorizer *authorize.Authorizer) error {
	result, err := authorizer.Retire(cmd.Context(), f.options)
	if err != nil {
		return err
	}
	return f.output.print(cmd.OutOrStdout(), result, func(p *printer) { p.line("Retired " + f.options.Reservation.Owner) })
}

func printPlan(p *printer, plan authorize.Plan) {
	for _, object := range plan.Objects {
		p.row("  "+object.Object, object.Outcome)
	}
	for _, use := range plan.LastUses {
		date := use.Date
		if date == "" {
			date = "never"
		}
		p.linef("Last use of the token in %s: %s", use.Secret, date)
	}
	for _, write := range plan.Writes {
		at := "unknown"
		if write.Time != nil {
			at = clock(write.Time)
		}
		p.linef("Last write of %s by %q: %s", write.Resource, write.Manager, at)
	}
	for _, binding := range plan.Bindings {
		p.line("Also bound, and not deleted: " + binding)
	}
	for _, pod := range plan.Pods {
		p.line("Runs as the ServiceAccount: pod " + pod)
	}
}

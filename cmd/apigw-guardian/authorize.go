// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
)

func newAuthorize(shared *sharedFlags) *cobra.Command {
	flags, output := &readinessFlags{}, outputFlag{format: formatTable}
	var wait time.Duration
	var awaitProtection bool
	cmd := &cobra.Command{
		Use:   "authorize",
		Short: "Apply the reserved resources, and prove that the credential works",
		Long: `authorize runs the preflight, applies the reserved manifests in a safe order, waits for the token, and proves it: it
authenticates with it, and compares what it may do with the reserved role. It can be repeated at any time; what is as it
should be is not written again.`,
		Example: `  apigw-guardian authorize
  apigw-guardian authorize --private-network warn --wait 2m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := flags.options()
			if err != nil {
				return err
			}
			if wait <= 0 {
				return fmt.Errorf("%w: --wait %s: give a time above zero", errUsage, wait)
			}
			options.Wait = wait
			run := authorizeRun{
				shared: shared, namespace: flags.namespace, options: options, output: &output, awaitProtection: awaitProtection,
			}
			return run.do(cmd)
		},
	}
	flags.addTo(cmd.Flags())
	cmd.Flags().DurationVar(&wait, "wait", authorize.DefaultWait, "how long to wait for each token and its permissions")
	cmd.Flags().BoolVar(&awaitProtection, "await-protection", false,
		"then wait, for as long, until the guard denies a forbidden write to each resource, and fail if it does not")
	output.addTo(cmd)
	return cmd
}

// authorizeRun is one run of the command.
type authorizeRun struct {
	shared          *sharedFlags
	namespace       string
	options         authorize.Options
	output          *outputFlag
	awaitProtection bool
}

func (r authorizeRun) do(cmd *cobra.Command) error {
	authorizer, owners, err := r.shared.authorizer(r.namespace)
	if err != nil {
		return err
	}
	if r.output.format == formatTable {
		r.options.Report = func(line authorize.Line) { say(cmd.OutOrStdout(), line.String()) }
	}
	r.options.Checked = func(checks authorize.Checks) { warn(cmd.ErrOrStderr(), checks) }
	result, err := authorizer.Authorize(cmd.Context(), r.options)
	if err != nil {
		return err
	}
	if r.awaitProtection {
		if err := authorizer.AwaitProtection(cmd.Context(), r.options.Wait); err != nil {
			return fmt.Errorf("%w\nIs the guard running? Look at its Pods and their logs, then try again", err)
		}
	}
	if r.output.format != formatTable {
		return r.output.print(cmd.OutOrStdout(), result, nil)
	}
	say(cmd.OutOrStdout(), "Authorized "+owners)
	return nil
}

// warn tells what an administrator should know although the run went on.
func warn(stderr io.Writer, checks authorize.Checks) {
	for _, check := range checks.Checks {
		if check.Status == authorize.Unknown && check.Remedy != "" {
			say(stderr, fmt.Sprintf("Warning: %s: %s %s", check.ID, check.Message, check.Remedy))
		}
	}
}

// say writes one line for people. Where nobody can read it any more, there is nobody to tell.
func say(w io.Writer, line string) {
	_, _ = fmt.Fprintln(w, line)
}

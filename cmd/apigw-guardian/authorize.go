// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// preflightFlags are the flags of preflight, which authorize has too.
type preflightFlags struct {
	authorize.Options

	cloud     tke.Client
	namespace string
	output    outputFlag
}

func (f *preflightFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	choiceOf(&f.PrivateNetwork, authorize.NetworkEnforce, authorize.NetworkWarn, authorize.NetworkSkip).addTo(cmd, "private-network",
		"result of disabled private network access: enforce fails, warn warns, skip does not check")
	addCloudTo(flags, &f.cloud)
	flags.BoolVar(&f.Repair, "repair", false, "repair reserved resources that differ from their manifests, instead of failing")
	flags.StringVarP(&f.namespace, "namespace", "n", guardian.Namespace,
		"namespace of the guard, which reads there which token Secrets are in use")
	f.output.addTo(cmd)
}

// check completes the options. The error wraps errUsage.
func (f *preflightFlags) check() error {
	if err := checkCloud(f.cloud); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.cloud.Credentials != "" {
		f.AskCloud = f.cloud.PrivateNetwork
	}
	return nil
}

// preflightTimeout bounds all checks together: an API server that hangs would take its time for each.
const preflightTimeout = 30 * time.Second

func newPreflight(shared *sharedFlags) *cobra.Command {
	flags := &preflightFlags{}
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check whether the cluster is ready for authorize; changes nothing",
		Example: `  apigw-guardian preflight
  apigw-guardian preflight --private-network warn -o json

  # ask Tencent Cloud too, with an API key in the files secretId and secretKey of a directory
  apigw-guardian preflight --tencent-cloud-credentials DIRECTORY --tencent-cloud-region ap-guangzhou --tencent-cloud-cluster cls-abcd1234`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			cluster, err := shared.cluster(cmd.Context(), flags.namespace)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), preflightTimeout)
			defer cancel()
			checks := authorize.New(cluster).Preflight(ctx, flags.Options)
			if ctx.Err() != nil {
				return fmt.Errorf("preflight: no end after %s: %w: check the API server and the network", preflightTimeout, ctx.Err())
			}
			err = flags.output.print(cmd.OutOrStdout(), checks, func(p *printer) { printChecks(p, checks) })
			if err == nil && len(checks.Failed()) > 0 {
				return errNotAsItShould
			}
			return err
		},
	}
	flags.addTo(cmd)
	return cmd
}

func printChecks(p *printer, checks authorize.Checks) {
	p.row("CHECK", "STATUS", "MESSAGE")
	for _, check := range checks.Checks {
		p.row(check.ID, string(check.Status), check.Message)
		if check.Remedy != "" {
			p.row("", "", "-> "+check.Remedy)
		}
	}
}

type authorizeFlags struct {
	preflightFlags
	awaitProtection bool
	skipRetired     bool
	engine          string
}

func newAuthorize(shared *sharedFlags) *cobra.Command {
	flags := &authorizeFlags{}
	cmd := &cobra.Command{
		Use:   "authorize",
		Short: "Apply the reserved resources, and prove that the credential works",
		Long: `authorize runs the preflight, applies the reserved manifests in a safe order, waits for the token, and proves it: it
authenticates with the token, and compares its permissions with the reserved role. You can repeat it: an object that
equals its manifest is not written.`,
		Example: `  apigw-guardian authorize
  apigw-guardian authorize --private-network warn --wait 2m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if flags.Wait <= 0 {
				return fmt.Errorf("%w: --wait %s: must be positive", errUsage, flags.Wait)
			}
			if flags.Again && flags.skipRetired {
				return fmt.Errorf("%w: --again and --skip-retired: set one of them", errUsage)
			}
			return runAuthorize(cmd, shared, flags)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().DurationVar(&flags.Wait, "wait", authorize.DefaultWait, "time limit for each token and its permissions")
	shared.retryFlag(cmd)
	cmd.Flags().BoolVar(&flags.Again, "again", false, "authorize what was retired")
	cmd.Flags().BoolVar(&flags.skipRetired, "skip-retired", false, "leave out what was retired, instead of failing")
	cmd.Flags().BoolVar(&flags.awaitProtection, "await-protection", false,
		"then wait, up to the same limit, until the guard denies a forbidden write to each resource, and fail if it does not")
	choiceOf(&flags.engine, engineWebhook, enginePolicy, engineBoth).addTo(cmd, "engine",
		"engine of the chart: webhook, policy or both; with --await-protection, authorize removes what another engine left, once this one "+
			"denies")
	return cmd
}

func runAuthorize(cmd *cobra.Command, shared *sharedFlags, flags *authorizeFlags) error {
	cluster, err := shared.cluster(cmd.Context(), flags.namespace)
	if err != nil {
		return err
	}
	chosen := engine{
		name: flags.engine, isChart: flags.awaitProtection || cmd.Flags().Changed("engine"), observes: !flags.awaitProtection,
		cluster: cluster, cmd: cmd, wait: flags.Wait,
	}
	if err := chosen.begin(cmd.Context()); err != nil {
		return err
	}
	if flags.skipRetired {
		left, retired, err := authorize.New(cluster).Unretired(cmd.Context())
		if err != nil {
			return err
		}
		for _, reason := range retired {
			say(cmd.ErrOrStderr(), "Warning: left out: "+reason.Error())
		}
		if len(left) == 0 {
			return chosen.finish(cmd.Context())
		}
		if cluster.Set, err = reserved.NewSet(left...); err != nil {
			return err
		}
	}
	options := flags.Options
	if flags.output.format == formatTable {
		options.Report = func(line authorize.Line) { say(cmd.OutOrStdout(), line.String()) }
	}
	options.Checked = func(checks authorize.Checks) { warn(cmd.ErrOrStderr(), checks) }
	run := authorize.New(cluster).Authorize
	if flags.awaitProtection {
		run = authorize.New(cluster).AuthorizeReachable
	}
	result, err := run(cmd.Context(), options)
	if err != nil {
		return err
	}
	if err := chosen.finish(cmd.Context()); err != nil {
		return err
	}
	if flags.awaitProtection {
		if err := verify.New(cluster, verify.PermittedWrites).Await(cmd.Context(), options.Wait); err != nil {
			return fmt.Errorf("%w: check the guard's Pods and their logs, then try again", err)
		}
	}
	return flags.output.print(cmd.OutOrStdout(), result, func(p *printer) { p.line("Authorized " + ownersOf(cluster.Set)) })
}

// warn prints each unknown check that has a remedy.
func warn(stderr io.Writer, checks authorize.Checks) {
	for _, check := range checks.Checks {
		if check.Status == authorize.Unknown && check.Remedy != "" {
			say(stderr, fmt.Sprintf("Warning: %s: %s. %s", check.ID, check.Message, check.Remedy))
		}
	}
}

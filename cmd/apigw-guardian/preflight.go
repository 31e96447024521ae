// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
)

// authorizer connects to the cluster that the flags name; owners names everybody whom it authorizes. The guard in the namespace
// is told which token Secrets are in use; an empty namespace stands for none.
func (f *sharedFlags) authorizer(namespace string) (authorizer *authorize.Authorizer, owners string, err error) {
	set, err := f.set()
	if err != nil {
		return nil, "", err
	}
	config, err := f.restConfig()
	if err != nil {
		return nil, "", err
	}
	cluster, err := authorize.Connect(config)
	if err != nil {
		return nil, "", fmt.Errorf("connect to the cluster: %w", err)
	}
	cluster.Namespace = namespace
	authorizer, err = authorize.New(set, cluster)
	return authorizer, ownersOf(set), err
}

// readinessFlags say how strict a preflight is.
type readinessFlags struct {
	privateNetwork string
	repair         bool
	namespace      string
}

func (f *readinessFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.privateNetwork, "private-network", string(authorize.NetworkEnforce),
		"private network access that is off: enforce fails, warn goes on, skip does not look")
	flags.BoolVar(&f.repair, "repair", false, "put right reserved resources that differ from their manifests, instead of refusing")
	flags.StringVar(&f.namespace, "namespace", guardian.WebhookConfiguration, "namespace of the guard, which reads there which token Secrets are in use")
}

func (f *readinessFlags) options() (authorize.Options, error) {
	mode, err := authorize.ParseNetworkMode(f.privateNetwork)
	if err != nil {
		return authorize.Options{}, fmt.Errorf("%w: --private-network: %w", errUsage, err)
	}
	return authorize.Options{PrivateNetwork: mode, Repair: f.repair}, nil
}

func newPreflight(shared *sharedFlags) *cobra.Command {
	flags, output := &readinessFlags{}, outputFlag{format: formatTable}
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check whether API Gateway can be authorized on the cluster; changes nothing",
		Example: `  apigw-guardian preflight
  apigw-guardian preflight --private-network warn -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := flags.options()
			if err != nil {
				return err
			}
			authorizer, _, err := shared.authorizer(flags.namespace)
			if err != nil {
				return err
			}
			checks := authorizer.Preflight(cmd.Context(), options)
			if err := output.print(cmd.OutOrStdout(), checks, func(p *printer) { printChecks(p, checks) }); err != nil {
				return err
			}
			if len(checks.Failed()) > 0 {
				return errNotAsItShould
			}
			return nil
		},
	}
	flags.addTo(cmd.Flags())
	output.addTo(cmd)
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

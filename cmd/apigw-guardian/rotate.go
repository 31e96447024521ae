// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
)

func newRotate(shared *sharedFlags) *cobra.Command {
	f := &revocationFlags{shared: shared, word: "rotate"}
	cmd := &cobra.Command{
		Use:   f.word,
		Short: "Replace a leaked credential, and prove that the old one is refused",
		Long: `rotate opens an unlock for you, deletes the binding, the token Secrets and the ServiceAccount, and creates them again: the
ServiceAccount with another uid, the token Secret under another name. To delete the Secret alone does not help: the same
token comes back with it. Then rotate proves that the new token works and that the API server refuses the old ones, and
says where you enter the new one. Until then, API Gateway has no access.
If it is interrupted, run it again: it finishes, and proves.`,
		Example: `  apigw-guardian rotate --dry-run
  apigw-guardian rotate --yes --reason "the token was in a public log"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, f.rotate) },
	}
	f.addTo(cmd)
	f.options.KeepClusterRole = true
	return cmd
}

func (f *revocationFlags) rotate(cmd *cobra.Command, authorizer *authorize.Authorizer) error {
	result, err := authorizer.Rotate(cmd.Context(), f.options)
	if err != nil {
		return err
	}
	owner := f.options.Reservation.Owner
	return f.output.print(cmd.OutOrStdout(), result, func(p *printer) {
		p.line("Rotated " + owner)
		p.linef("Enter the new token in %s. It is in Secret %s/%s, and this reads it:", owner, result.Namespace, result.Secret)
		p.linef("  kubectl -n %s get secret %s -o jsonpath='{.data.token}' | base64 -d", result.Namespace, result.Secret)
	})
}

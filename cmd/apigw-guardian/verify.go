// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
)

// attackList is the result of verify, as JSON and YAML.
type attackList struct {
	Attacks []authorize.Attack `json:"attacks"`
}

func newVerify(shared *sharedFlags) *cobra.Command {
	output := outputFlag{format: formatTable}
	var permittedOnly bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Attack the reserved resources with every kind of write, as server dry-runs",
		Long: `verify attacks each reserved resource with every kind of write, as server dry-runs that store nothing, and prints what
came of it. Each attack must be denied by the guard, and unrelated writes must pass; it exits 3 otherwise.

RBAC is asked before the guard is. So whoever may not make all these writes needs --permitted-only: it leaves out, and counts,
what RBAC refuses, and still wants the guard to have denied at least one write to each reserved resource.`,
		Example: `  apigw-guardian verify

  # as an account that may not make every write, as "helm test" does
  apigw-guardian verify --permitted-only`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scope := authorize.EveryWrite
			if permittedOnly {
				scope = authorize.PermittedWrites
			}
			return runVerify(cmd, shared, scope, &output)
		},
	}
	cmd.Flags().BoolVar(&permittedOnly, "permitted-only", false, "leave out, and count, the writes that RBAC does not let the caller try")
	output.addTo(cmd)
	return cmd
}

func runVerify(cmd *cobra.Command, shared *sharedFlags, scope authorize.Scope, output *outputFlag) error {
	authorizer, _, err := shared.authorizer("")
	if err != nil {
		return err
	}
	attacks, err := authorizer.Verify(cmd.Context(), scope)
	if err != nil {
		return err
	}
	result := attackList{Attacks: attacks}
	if err := output.print(cmd.OutOrStdout(), result, func(p *printer) { printAttacks(p, attacks) }); err != nil {
		return err
	}
	if wrong, _ := count(attacks); wrong > 0 {
		return errNotAsItShould
	}
	return nil
}

func printAttacks(p *printer, attacks []authorize.Attack) {
	p.row("RESOURCE", "WRITE", "WANT", "GOT", "OK")
	for _, attack := range attacks {
		mark := "NO"
		switch {
		case attack.OK:
			mark = "yes"
		case attack.LeftOut:
			mark = "-"
		}
		p.row(attack.Resource, attack.Write, attack.Want, attack.Got, mark)
	}
	wrong, leftOut := count(attacks)
	tried := len(attacks) - leftOut
	if wrong > 0 {
		p.line(fmt.Sprintf("%d of %d writes did not go as they must.", wrong, tried))
	} else {
		p.line(fmt.Sprintf("All %d writes went as they must.", tried))
	}
	if leftOut > 0 {
		p.line(fmt.Sprintf("%d were left out, as RBAC does not let the caller try them.", leftOut))
	}
}

func count(attacks []authorize.Attack) (wrong, leftOut int) {
	for _, attack := range attacks {
		switch {
		case attack.LeftOut:
			leftOut++
		case !attack.OK:
			wrong++
		}
	}
	return wrong, leftOut
}

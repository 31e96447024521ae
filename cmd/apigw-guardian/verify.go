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
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Attack the reserved resources with every kind of write, as server dry-runs",
		Long: `verify attacks each reserved resource with every kind of write, as server dry-runs that store nothing, and prints what
came of it. Each attack must be denied by the guard, and unrelated writes must pass; it exits 3 otherwise.`,
		Example: "  apigw-guardian verify",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			authorizer, _, err := shared.authorizer()
			if err != nil {
				return err
			}
			attacks, err := authorizer.Verify(cmd.Context())
			if err != nil {
				return err
			}
			result := attackList{Attacks: attacks}
			if err := output.print(cmd.OutOrStdout(), result, func(p *printer) { printAttacks(p, attacks) }); err != nil {
				return err
			}
			if failures(attacks) > 0 {
				return errNotAsItShould
			}
			return nil
		},
	}
	output.addTo(cmd)
	return cmd
}

func printAttacks(p *printer, attacks []authorize.Attack) {
	p.row("RESOURCE", "WRITE", "WANT", "GOT", "OK")
	for _, attack := range attacks {
		mark := "yes"
		if !attack.OK {
			mark = "NO"
		}
		p.row(attack.Resource, attack.Write, attack.Want, attack.Got, mark)
	}
	if wrong := failures(attacks); wrong > 0 {
		p.line(fmt.Sprintf("%d of %d writes did not go as they must.", wrong, len(attacks)))
		return
	}
	p.line(fmt.Sprintf("All %d writes went as they must.", len(attacks)))
}

func failures(attacks []authorize.Attack) int {
	wrong := 0
	for _, attack := range attacks {
		if !attack.OK {
			wrong++
		}
	}
	return wrong
}

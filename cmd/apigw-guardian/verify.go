// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// attackList is the result of verify, as JSON and YAML.
type attackList struct {
	Attacks []verify.Attack `json:"attacks"`
}

func newVerify(shared *sharedFlags) *cobra.Command {
	output := outputFlag{}
	var permittedOnly bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Attack the reserved resources with every kind of write, as server dry-runs",
		Long: `verify attacks each reserved resource with every kind of write, as server dry-runs that store nothing. The guard must
deny each attack, and allow unrelated writes; verify exits 3 otherwise.

The API server asks RBAC before it calls the guard. A caller who may not make all these writes needs --permitted-only: it
leaves out, and counts, the writes that RBAC refuses. The guard must still deny at least one write to each reserved resource.`,
		Example: `  apigw-guardian verify

  # as an account that may not make every write, as "helm test" does
  apigw-guardian verify --permitted-only`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scope := verify.EveryWrite
			if permittedOnly {
				scope = verify.PermittedWrites
			}
			cluster, err := shared.cluster(cmd.Context(), "")
			if err != nil {
				return err
			}
			attacks, err := verify.New(cluster, scope).VerifyInOrder(cmd.Context(), progress(cmd.ErrOrStderr(), time.Now()))
			if err != nil {
				return err
			}
			err = output.print(cmd.OutOrStdout(), attackList{attacks}, func(p *printer) { printAttacks(p, attacks) })
			if good, leftOut := count(attacks); err == nil && good+leftOut < len(attacks) {
				return errNotAsItShould
			}
			return err
		},
	}
	shared.retryFlag(cmd)
	cmd.Flags().BoolVar(&permittedOnly, "permitted-only", false, "leave out, and count, the writes that RBAC refuses")
	output.addTo(cmd)
	return cmd
}

// slow is the time after which verify shows its progress.
const slow = 2 * time.Second

// progress returns a function that says each result as it comes, once it takes long: each write to a guard that hangs takes 5 s.
func progress(w io.Writer, start time.Time) func(verify.Attack) {
	return func(attack verify.Attack) {
		if time.Since(start) > slow {
			got, _, _ := strings.Cut(attack.Got, ": ")
			say(w, fmt.Sprintf("%s: %s: %s", attack.Resource, attack.Write, got))
		}
	}
}

func printAttacks(p *printer, attacks []verify.Attack) {
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
	good, leftOut := count(attacks)
	p.line(fmt.Sprintf("%d of %d writes had the expected result", good, len(attacks)-leftOut))
	if leftOut > 0 {
		p.line(fmt.Sprintf("%d writes were left out: RBAC does not let the caller try them", leftOut))
	}
}

func count(attacks []verify.Attack) (good, leftOut int) {
	for _, attack := range attacks {
		switch {
		case attack.OK:
			good++
		case attack.LeftOut:
			leftOut++
		}
	}
	return good, leftOut
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// attackList is the result of verify, as JSON and YAML.
type attackList struct {
	Attacks []verify.Attack `json:"attacks"`
}

func newVerify(shared *sharedFlags) *cobra.Command {
	output, several := outputFlag{}, fleet{}
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
			if several.isSet() {
				return ofFleet(cmd, &several, func(ctx context.Context, shared *sharedFlags) (attackList, error) {
					return runVerify(ctx, shared, scope, func(verify.Attack) {})
				}, printVerified)
			}
			result, err := runVerify(cmd.Context(), shared, scope, progress(cmd.ErrOrStderr(), time.Now()))
			if err != nil && !errors.Is(err, errNotAsItShould) {
				return err
			}
			return errors.Join(output.print(cmd.OutOrStdout(), result, func(p *printer) { printAttacks(p, result.Attacks) }), err)
		},
	}
	shared.retryFlag(cmd)
	cmd.Flags().BoolVar(&permittedOnly, "permitted-only", false, "leave out, and count, the writes that RBAC refuses")
	output.addTo(cmd)
	several.addTo(cmd, shared, &output, time.Minute) // it sends dozens of writes
	return cmd
}

// runVerify calls say with each result. It returns errNotAsItShould with results that are not as they should be.
func runVerify(ctx context.Context, shared *sharedFlags, scope verify.Scope, say func(verify.Attack)) (attackList, error) {
	cluster, err := shared.cluster(ctx, "")
	if err != nil {
		return attackList{}, err
	}
	attacks, err := verify.New(cluster, scope).Verify(ctx, say)
	if good, leftOut := count(attacks); err == nil && good+leftOut < len(attacks) {
		err = errNotAsItShould
	}
	return attackList{attacks}, err
}

// printVerified prints a row for each context that could be read.
func printVerified(p *printer, members []member[attackList]) {
	p.row("CONTEXT", "WRITES", "AS EXPECTED", "LEFT OUT", "FIRST OTHER")
	for _, m := range members {
		if m.Result == nil {
			continue
		}
		attacks := m.Result.Attacks
		good, leftOut := count(attacks)
		other := "-"
		if at := slices.IndexFunc(attacks, func(a verify.Attack) bool { return !a.OK && !a.LeftOut }); at >= 0 {
			other = fmt.Sprintf("%s: %s: %s", attacks[at].Resource, attacks[at].Write, text.Printable(attacks[at].Got, maxProblem))
		}
		p.row(m.Context, strconv.Itoa(len(attacks)-leftOut), strconv.Itoa(good), strconv.Itoa(leftOut), other)
	}
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
	p.linef("%d of %d writes had the expected result", good, len(attacks)-leftOut)
	if leftOut > 0 {
		p.linef("%d writes were left out: RBAC does not let the caller try them", leftOut)
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

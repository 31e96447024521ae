// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes that scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotAsShould = 3
)

var (
	// errUsage marks what the caller must write differently.
	errUsage = errors.New("wrong usage")
	// errNotAsItShould says that a command ran, and that what it looked at is not as it should be. The command has printed
	// what it found.
	errNotAsItShould = errors.New("not as it should be")
)

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root, out := newRoot(), &output{writer: stdout}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil, out.isClosed():
		return exitDone
	case errors.Is(err, errNotAsItShould):
		return exitNotAsShould
	case errors.Is(err, errUsage):
		_, _ = fmt.Fprintf(stderr, "Error: %v\nRun \"apigw-guardian -h\" for the commands and their flags.\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(stderr, "Error: %v\n", err)
		return exitFailed
	}
}

// slip is how many letters too many, too few or wrong are taken for another command's name.
const slip = 2

func newRoot() *cobra.Command {
	shared := &sharedFlags{}
	root := &cobra.Command{
		Use:   "apigw-guardian",
		Short: "Authorize API Gateway on a cluster, and guard the resources it reserves",
		Long: `apigw-guardian authorizes API Gateway on a Kubernetes cluster by applying the resources that it reserves,
and rejects every edit or deletion of them.

Exit codes: 0 done and as it should be; 1 it failed; 2 wrong usage; 3 it ran, and what it looked at is not as it
should be.`,
		Example: "  apigw-guardian preflight\n  apigw-guardian authorize\n  apigw-guardian status",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: slip,

		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%s: %w: %w", cmd.CommandPath(), errUsage, err)
	})
	shared.addTo(root.PersistentFlags())
	root.AddCommand(
		newPreflight(shared), newAuthorize(shared), newStatus(shared), newVerify(shared), newAudit(shared), newWebhook(shared),
		newUninstall(shared), newVersion(),
	)
	return root
}

// noArgs refuses arguments, and proposes the commands that a mistyped one comes near to.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	if !cmd.HasSubCommands() {
		return fmt.Errorf("%w: %s takes no argument, and was given %q", errUsage, cmd.CommandPath(), args[0])
	}
	return fmt.Errorf("%w: there is no command %q of %s%s", errUsage, args[0], cmd.CommandPath(), hint)
}

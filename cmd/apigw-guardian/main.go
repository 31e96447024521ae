// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command apigw-guardian authorizes API Gateway on a Kubernetes cluster, and guards the resources that it reserves there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

func main() {
	// A reader such as head may close the pipe. With a receiver of the signal, the write fails and the process does not end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, arguments(os.Args), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit codes that scripts rely on.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitProblem = 3
)

var (
	// errUsage marks a wrong command line.
	errUsage = errors.New("wrong usage")
	// errNotAsItShould says that a command found a problem, and has printed it.
	errNotAsItShould = errors.New("a check found a problem")
)

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root, out := newRoot(), &output{writer: stdout}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if out.closed.Load() {
		return exitDone
	}
	code := codeOf(err)
	if code == exitUsage || code == exitFailed {
		_, _ = fmt.Fprintf(stderr, "Error: %v\n", err)
	}
	if code == exitUsage {
		_, _ = fmt.Fprintf(stderr, "Run \"%s -h\" for what is allowed.\n", cmd.CommandPath())
	}
	return code
}

// slip is the edit distance up to which a mistyped command is recognized.
const slip = 2

func newRoot() *cobra.Command {
	shared := &sharedFlags{}
	root := &cobra.Command{
		Use:   "apigw-guardian",
		Short: "Authorize API Gateway on a cluster, and guard its reserved resources",
		Long: `apigw-guardian authorizes API Gateway on a Kubernetes cluster: it applies the reserved resources of API Gateway, and
denies every edit and deletion of them.

Exit codes: 0 success; 1 failure; 2 wrong usage; 3 a check found a problem.`,
		Example: "  apigw-guardian preflight\n  apigw-guardian authorize\n  apigw-guardian status",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SuggestionsMinimumDistance: slip,

		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
			return fmt.Errorf("%w: --%s %q: %w", errUsage, invalid.GetFlag().Name, invalid.GetValue(), invalid.Unwrap())
		}
		return fmt.Errorf("%s: %w: %w", cmd.CommandPath(), errUsage, err)
	})
	shared.addTo(root.PersistentFlags())
	completeKubeconfig(root, shared)
	root.AddCommand(
		newPreflight(shared), newAuthorize(shared), newStatus(shared), newVerify(shared), newAudit(shared), newWebhook(shared),
		newController(shared), newUnlock(shared), newLock(shared), newRotate(shared), newRetire(shared), newPolicy(shared), newUninstall(shared), newVersion(),
	)
	// SetVersionTemplate would link text/template, for which the linker keeps every method: half the size again, and more memory.
	root.Version = fullVersion()
	nameAs(root, filepath.Base(os.Args[0]))
	return root
}

// plugin is the name of the program as a plugin of kubectl, which calls it as the command of pluginCommand.
const (
	plugin        = "kubectl-apigw_guardian"
	pluginCommand = "kubectl apigw-guardian"
	// completer is the name by which kubectl calls a program for the words that fit the last argument of the plugin:
	// https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins
	completer = "kubectl_complete-apigw_guardian"
)

// arguments returns those of the command line that a process was started with.
func arguments(process []string) []string {
	if strings.TrimSuffix(filepath.Base(process[0]), ".exe") == completer {
		return append([]string{cobra.ShellCompRequestCmd}, process[1:]...)
	}
	return process[1:]
}

// nameAs lets the help of all commands call the program as the user has called it.
func nameAs(root *cobra.Command, program string) {
	if strings.TrimSuffix(program, ".exe") != plugin {
		return
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: pluginCommand}
	for commands := []*cobra.Command{root}; len(commands) > 0; commands = commands[1:] {
		cmd := commands[0]
		commands = append(commands, cmd.Commands()...)
		cmd.Example = strings.ReplaceAll(cmd.Example, guardian.Name+" ", pluginCommand+" ")
	}
}

// noArgs refuses arguments, and proposes commands for a mistyped one.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	if !cmd.HasSubCommands() {
		return fmt.Errorf("%w: %s takes no argument: %q", errUsage, cmd.CommandPath(), args[0])
	}
	return fmt.Errorf("%w: unknown command %q of %s%s", errUsage, args[0], cmd.CommandPath(), hint)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// step is one command line, and what must come of it.
type step struct {
	title string
	// args start with kubectl or apigw-guardian.
	args []string
	// input is given to the command.
	input string
	// denied says that the guard must refuse it.
	denied bool
	// says must be in what the command prints.
	says string
}

func steps() []step {
	kubectl := func(args ...string) []string { return append([]string{"kubectl"}, args...) }
	return []step{
		{title: "What would prevent an authorization?", args: []string{"apigw-guardian", "preflight"}, says: "admin-role"},
		{title: "Authorize API Gateway", args: []string{"apigw-guardian", "authorize"}, says: "Authorized API Gateway"},
		{
			title: "A user removes a permission of API Gateway", denied: true, says: "changed: rules[2].verbs",
			args: kubectl("patch", "clusterrole", "apigw-ingress-clusterrole", "--type=json",
				`-p=[{"op":"replace","path":"/rules/2/verbs","value":["get"]}]`),
		},
		{
			title: "A user deletes its token", denied: true, says: "must not be deleted",
			args: kubectl("-n", "kube-system", "delete", "secret", "apigw-ingress-token-guardian"),
		},
		{
			title: "A user deletes a whole collection", denied: true, says: "must not be deleted",
			args: kubectl("delete", "--raw",
				"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?fieldSelector=metadata.name%3Dapigw-ingress-clusterrole-binding"),
		},
		{
			title: "A user creates one more token of its account, under another name", denied: true, says: "would hold a token",
			args: kubectl("create", "-f", "-"), input: mint,
		},
		{
			title: "An apply that changes nothing passes", says: "serverside-applied",
			args: kubectl("apply", "--server-side", "--force-conflicts", "-f", "-"), input: account,
		},
		{title: "The administrator finds what was denied", args: []string{"apigw-guardian", "audit", "list"}, says: "TokenMint"},
		{title: "Is every way to write denied?", args: []string{"apigw-guardian", "verify"}, says: "denied"},
		{title: "Is all as it should be?", args: []string{"apigw-guardian", "status"}, says: "Authorized API Gateway"},
	}
}

const mint = `apiVersion: v1
kind: Secret
type: kubernetes.io/service-account-token
metadata:
  namespace: kube-system
  name: innocent
  annotations:
    kubernetes.io/service-account.name: apigw-ingress
`

const account = `apiVersion: v1
kind: ServiceAccount
metadata:
  namespace: kube-system
  name: apigw-ingress
`

// shell runs the steps against one cluster.
type shell struct {
	cluster  *testbed.Cluster
	guardian string
}

// errUnexpected says that a step did not go as it must.
var errUnexpected = errors.New("the step did not go as it must")

// play shows a step as a person would type it, with what it prints.
func (s *shell) play(ctx context.Context, step step) error {
	fmt.Printf("\n# %s\n$ %s\n", step.title, typed(step))
	command := s.command(ctx, step.args)
	var printed bytes.Buffer
	command.Stdin = strings.NewReader(step.input)
	command.Stdout = io.MultiWriter(os.Stdout, &printed)
	command.Stderr = command.Stdout // a person sees both in one place
	err := command.Run()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		return fmt.Errorf("%s: %w", step.title, err)
	case (err != nil) != step.denied:
		return fmt.Errorf("%w: %s: %v", errUnexpected, step.title, command.ProcessState)
	case !strings.Contains(printed.String(), step.says):
		return fmt.Errorf("%w: %s: it does not say %q", errUnexpected, step.title, step.says)
	}
	return nil
}

func (s *shell) command(ctx context.Context, args []string) *exec.Cmd {
	command := s.cluster.KubectlCommand(ctx, args[1:]...)
	if args[0] == "apigw-guardian" {
		command.Path, command.Args[0] = s.guardian, s.guardian
	}
	return command
}

// typed is the command line with quotes where a shell needs them.
func typed(step step) string {
	var words []string
	for _, arg := range step.args {
		if strings.ContainsAny(arg, `[]{}"?*& `) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	line := strings.Join(words, " ")
	if step.input != "" {
		line += " <<END\n" + step.input + "END"
	}
	return line
}

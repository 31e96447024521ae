// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// fleet lets a command read several clusters side by side.
type fleet struct {
	contexts []string
	all      bool
	// limit is the time for each context.
	limit time.Duration

	shared *sharedFlags
	// output is nil for a command that prints no result.
	output *outputFlag
}

const (
	// fleetLimit is the default limit of a command that reads; sideBySide is how many contexts are read at once.
	fleetLimit = 4 * time.Second
	sideBySide = 100
	// maxProblem bounds the text of an error in a row.
	maxProblem = 300
)

func (f *fleet) addTo(cmd *cobra.Command, shared *sharedFlags, output *outputFlag, limit time.Duration) {
	f.shared, f.output = shared, output
	flags, exits := cmd.Flags(), "; the exit code is the highest one"
	if output == nil {
		exits = ""
	}
	flags.StringSliceVar(&f.contexts, "contexts", nil, "contexts of the kubeconfig to read side by side"+exits)
	flags.BoolVar(&f.all, "all-contexts", false, "read all contexts of the kubeconfig side by side")
	flags.DurationVar(&f.limit, "context-timeout", limit, "time limit for each of several contexts")
	completeFrom(cmd, "contexts", func(context.Context) []string {
		names, _ := shared.allContexts()
		return names
	})
}

func (f *fleet) isSet() bool { return f.all || f.contexts != nil }

func (f *sharedFlags) allContexts() ([]string, error) {
	raw, err := f.clientConfig().RawConfig()
	if err != nil {
		return nil, fmt.Errorf("load the client configuration: %w", err)
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), nil
}

// names returns the contexts, each once. The error may wrap errUsage.
func (f *fleet) names() ([]string, error) {
	o := &f.shared.overrides
	switch {
	case f.all && f.contexts != nil:
		return nil, fmt.Errorf("%w: give --contexts or --all-contexts, not both", errUsage)
	case o.CurrentContext != "" || o.Context.Cluster != "" || o.ClusterInfo.Server != "":
		return nil, fmt.Errorf("%w: --context, --cluster and --server choose one cluster, and --contexts several: give one of them", errUsage)
	case f.limit <= 0:
		return nil, fmt.Errorf("%w: --context-timeout %s: must be positive", errUsage, f.limit)
	case f.output != nil && (f.output.format == formatCSV || f.output.format == formatName):
		return nil, fmt.Errorf("%w: several contexts go with -o table, wide, json, yaml, jsonpath or custom-columns, not with -o %s",
			errUsage, f.output.format)
	case slices.ContainsFunc(f.contexts, func(name string) bool { return strings.TrimSpace(name) == "" }) || !f.all && len(f.contexts) == 0:
		return nil, fmt.Errorf("%w: --contexts needs names of contexts: see kubectl config get-contexts", errUsage)
	}
	if !f.all {
		var names []string
		for _, name := range f.contexts {
			name = strings.TrimSpace(name) // "a, b"
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return names, nil
	}
	names, err := f.shared.allContexts()
	if err == nil && len(names) == 0 {
		err = errors.New("the kubeconfig has no context: set --kubeconfig or $KUBECONFIG")
	}
	return names, err
}

// member is the result of one context. Result is absent if the context could not be read.
type member[T any] struct {
	Context  string `json:"context"`
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error,omitempty"`
	Result   *T     `json:"result,omitempty"`

	err error
}

// memberList is what a command prints about several contexts as JSON and YAML.
type memberList[T any] struct {
	Contexts []member[T] `json:"contexts"`
}

// ofFleet reads each context and prints all results: by table what could be read, and a row for each context that could not. The
// error is one of the highest exit code.
func ofFleet[T any](
	cmd *cobra.Command, f *fleet, read func(context.Context, *sharedFlags) (T, error), table func(*printer, []member[T]),
) error {
	names, err := f.names()
	if err != nil {
		return err
	}
	members := make([]member[T], len(names))
	slots := make(chan struct{}, sideBySide)
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			members[i] = readMember(cmd.Context(), f, name, read)
			members[i].Context = name
		})
	}
	group.Wait()
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if !slices.ContainsFunc(members, func(m member[T]) bool { return m.ExitCode != exitUsage }) {
		return members[0].err // the flags are the same for all
	}
	err = f.output.print(cmd.OutOrStdout(), memberList[T]{members}, func(p *printer) {
		table(p, members)
		for i := range members {
			if members[i].Error != "" {
				p.row(members[i].Context, "Error: "+members[i].Error)
			}
		}
	})
	return errors.Join(err, worst(members))
}

// of returns the flags for one context.
func (f *sharedFlags) of(name string) *sharedFlags {
	one := *f
	one.overrides.CurrentContext = name
	return &one
}

func (f *fleet) late() error {
	return fmt.Errorf("no answer within %s: raise --context-timeout, or check the network", f.limit)
}

// readMember ends at the limit, also if read does not.
func readMember[T any](
	ctx context.Context, f *fleet, name string, read func(context.Context, *sharedFlags) (T, error),
) member[T] {
	ctx, cancel := context.WithTimeoutCause(ctx, f.limit, f.late())
	defer cancel()
	done := make(chan member[T], 1)
	go func() {
		result, err := read(ctx, f.shared.of(name))
		m := member[T]{ExitCode: codeOf(err), err: err}
		if err == nil || m.ExitCode == exitProblem {
			m.Result = &result
		}
		done <- m
	}()
	var m member[T]
	select {
	case m = <-done:
	case <-ctx.Done():
		m = member[T]{ExitCode: exitFailed, err: context.Cause(ctx)}
	}
	if m.Result != nil {
		return m
	}
	if ctx.Err() != nil {
		m.err = context.Cause(ctx) // an error of a request that was cut off says less
	}
	m.Error = text.Printable(strings.ReplaceAll(m.err.Error(), "\n", " "), maxProblem)
	return m
}

func codeOf(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errNotAsItShould):
		return exitProblem
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitFailed
}

// worst returns the error of the highest exit code.
func worst[T any](members []member[T]) error {
	code, failed, refused := exitDone, 0, 0
	for i := range members {
		code = max(code, members[i].ExitCode)
		if members[i].Result == nil {
			failed++
		}
		if members[i].ExitCode == exitUsage {
			refused++
		}
	}
	switch code {
	case exitDone:
		return nil
	case exitProblem:
		return errNotAsItShould
	case exitUsage:
		return fmt.Errorf("%w: %d of %d contexts refuse the flags", errUsage, refused, len(members))
	}
	return fmt.Errorf("%d of %d contexts could not be read", failed, len(members))
}

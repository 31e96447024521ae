// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/records"
)

// manyRecords is as many as the guard keeps.
const manyRecords = 10_000

// listRecords is P10: how long a person waits for all records, in turns with kubectl.
func (b *bench) listRecords(ctx context.Context) error {
	if err := b.cluster.InstallCRDs(ctx); err != nil {
		return err
	}
	if err := records.Fill(ctx, b.cluster.AdminConfig(), manyRecords); err != nil {
		return err
	}
	contenders := []struct {
		name    string
		command func() *exec.Cmd
		times   []time.Duration
	}{
		{name: "apigw-guardian audit list", command: func() *exec.Cmd { return b.guardianCommand(ctx, "audit", "list") }},
		{name: "apigw-guardian audit list -o json", command: func() *exec.Cmd { return b.guardianCommand(ctx, "audit", "list", "-o", "json") }},
		{name: "apigw-guardian audit summary", command: func() *exec.Cmd { return b.guardianCommand(ctx, "audit", "summary") }},
		{name: "kubectl get denials", command: func() *exec.Cmd { return b.cluster.KubectlCommand(ctx, "get", "denials") }},
	}
	for range rounds {
		for i := range contenders {
			took, err := timeCommand(contenders[i].command())
			if err != nil {
				return err
			}
			contenders[i].times = append(contenders[i].times, took)
		}
	}
	fmt.Printf("\n| P10 over %d records | median | longest | ratio to kubectl |\n|---|---|---|---|\n", manyRecords)
	kubectl := median(contenders[len(contenders)-1].times)
	for i := range contenders {
		c := &contenders[i]
		fmt.Printf("| `%s` | %s | %s | %.2fx |\n", c.name, milliseconds(median(c.times)), milliseconds(slices.Max(c.times)),
			float64(median(c.times))/float64(kubectl))
	}
	return nil
}

func (b *bench) guardianCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, b.guardian, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+b.cluster.Kubeconfig())
	return command
}

// timeCommand runs a command whose output is read and counted for nothing.
func timeCommand(command *exec.Cmd) (time.Duration, error) {
	command.Stdout, command.Stderr = io.Discard, os.Stderr
	start := time.Now()
	if err := command.Run(); err != nil {
		return 0, fmt.Errorf("time %s: %w", command, err)
	}
	return time.Since(start), nil
}

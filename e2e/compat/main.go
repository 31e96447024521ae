// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command compat runs the end-to-end tests on Kubernetes releases, and prints a Markdown table of the results.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
)

// packages are those whose tests depend on the release of the API server and need no node.
func packages() []string { return []string{"./e2e", "./e2e/review", "./e2e/recording"} }

func main() {
	program.Main("compat", func(ctx context.Context) error {
		if len(os.Args) < 2 {
			return errors.New("no version: give Kubernetes releases, such as 1.37.2")
		}
		var table strings.Builder
		table.WriteString("| Kubernetes | passed | failed | skipped |\n|---|---|---|---|\n")
		failed := 0
		for _, version := range os.Args[1:] {
			counts, err := test(ctx, version)
			if err != nil {
				return fmt.Errorf("test on Kubernetes %s: %w", version, err)
			}
			failed += counts["fail"]
			fmt.Fprintf(&table, "| %s | %d | %d | %d |\n", version, counts["pass"], counts["fail"], counts["skip"])
		}
		fmt.Printf("%s\nRun on %s.\n", table.String(), time.Now().UTC().Format(time.DateOnly))
		if failed > 0 {
			return fmt.Errorf("%d tests failed", failed)
		}
		return nil
	})
}

// test runs the tests on a release and counts top-level tests, and packages that failed without one, by their result.
func test(ctx context.Context, version string) (map[string]int, error) {
	command := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-p", "1", "-count=1", "-timeout=40m"}, packages()...)...)
	command.Env, command.Stderr = append(os.Environ(), "K8S_VERSION="+version), os.Stderr
	events, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	counts, err := count(events)
	var exit *exec.ExitError
	if errWait := command.Wait(); errWait != nil && !errors.As(errWait, &exit) {
		err = errors.Join(err, errWait)
	}
	if exit != nil && counts["fail"] == 0 {
		err = errors.Join(err, exit)
	}
	return counts, err
}

func count(events io.Reader) (map[string]int, error) {
	counts, failures := map[string]int{}, map[string]int{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return counts, nil
			}
			return counts, err
		}
		var event struct{ Action, Package, Test string }
		if json.Unmarshal(line, &event) != nil || strings.Contains(event.Test, "/") {
			continue
		}
		switch event.Action {
		case "pass", "skip":
			if event.Test != "" {
				counts[event.Action]++
			}
		case "fail":
			if event.Test != "" {
				failures[event.Package]++
			}
			if event.Test != "" || failures[event.Package] == 0 { // the package failed before its first test
				counts["fail"]++
				fmt.Fprintln(os.Stderr, "FAIL", event.Package, event.Test)
			}
		}
	}
}

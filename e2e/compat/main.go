// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command compat runs the end-to-end tests on Kubernetes releases, and prints a Markdown table of the results.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testjson"
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
	if err := os.Setenv("K8S_VERSION", version); err != nil {
		return nil, err
	}
	t := tally{results: map[string]int{}, failures: map[string]int{}}
	code, err := testjson.Run(ctx, append([]string{"test", "-json", "-p", "1", "-count=1", "-timeout=40m"}, packages()...), io.Discard, t.take)
	if code != 0 && t.results["fail"] == 0 {
		err = errors.Join(err, fmt.Errorf("go test ended with exit code %d", code))
	}
	return t.results, err
}

// tally counts tests by result, and those that failed by package.
type tally struct{ results, failures map[string]int }

func (t tally) take(e testjson.Event) {
	isTest, isSubtest := e.Test != "", strings.Contains(e.Test, "/")
	switch {
	case isSubtest:
	case isTest && (e.Action == "pass" || e.Action == "skip"):
		t.results[e.Action]++
	case e.Action == "fail" && (isTest || t.failures[e.Package] == 0): // the package failed before its first test
		t.results["fail"]++
		t.failures[e.Package]++
		fmt.Fprintln(os.Stderr, "FAIL", e.Package, e.Test)
	}
}

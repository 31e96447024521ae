// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apigw-guardian/apigw-guardian/e2e/testjson"
)

// result is a test or a package that has ended.
type result struct {
	name    string
	seconds float64
}

// slowest is how many of the slowest tests are listed.
const slowest = 15

// summary prints packages as they end, and keeps the rest for finish. Several runs of go test may fill it.
type summary struct {
	out     io.Writer
	verbose bool

	mu sync.Mutex // guards what follows
	// open holds the output of tests and packages that have not passed, by package and test.
	open     map[string]map[string][]string
	order    map[string][]string
	waits    map[string]float64
	tests    []result
	packages int
	failed   []string
	skipped  []string
}

func newSummary(out io.Writer, verbose bool) *summary {
	return &summary{
		out: out, verbose: verbose,
		open: map[string]map[string][]string{}, order: map[string][]string{}, waits: map[string]float64{},
	}
}

// read takes events until the end. A line that is no event is printed as it is.
func (s *summary) read(events io.Reader) error { return testjson.Read(events, s.out, s.take) }

// waited is the line by which a test says how long it has waited for a control plane: that is not its own time.
var waited = regexp.MustCompile(`waited (\d+\.\d) s for a bed`)

func (s *summary) take(e testjson.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Action == "build-output":
		fmt.Fprint(s.out, e.Output)
	case e.Action == "output":
		s.keep(e)
		if found := waited.FindStringSubmatch(e.Output); found != nil {
			s.waits[e.Package+e.Test], _ = strconv.ParseFloat(found[1], 64) // digits
		}
	case e.Action == "pass" && e.Test != "", e.Action == "skip" && e.Test != "":
		delete(s.open[e.Package], e.Test)
		s.end(e)
	case e.Action == "fail" && e.Test != "":
		s.end(e)
	case e.Action == "pass", e.Action == "skip", e.Action == "fail":
		s.endPackage(e)
	}
}

func (s *summary) keep(e testjson.Event) {
	if s.verbose {
		fmt.Fprint(s.out, e.Output)
		return
	}
	if s.open[e.Package] == nil {
		s.open[e.Package] = map[string][]string{}
	}
	if _, found := s.open[e.Package][e.Test]; !found {
		s.order[e.Package] = append(s.order[e.Package], e.Test)
	}
	s.open[e.Package][e.Test] = append(s.open[e.Package][e.Test], e.Output)
}

// end notes a test. Only top-level tests are compared by time: their subtests are part of them.
func (s *summary) end(e testjson.Event) {
	name := strings.TrimPrefix(e.Package, testjson.Module) + "." + e.Test
	if e.Action == "skip" {
		s.skipped = append(s.skipped, name)
	}
	if !strings.Contains(e.Test, "/") {
		s.tests = append(s.tests, result{name: name, seconds: e.Elapsed - s.waits[e.Package+e.Test]})
	}
}

// endPackage prints a line for the package, and all that its failed or unfinished tests have printed.
func (s *summary) endPackage(e testjson.Event) {
	name := strings.TrimPrefix(e.Package, testjson.Module)
	switch e.Action {
	case "skip": // it has no tests
	case "pass":
		s.packages++
		fmt.Fprintf(s.out, "ok    %6.1f s  %s\n", e.Elapsed, name)
	default:
		s.packages++
		s.failed = append(s.failed, name)
		for _, test := range s.order[e.Package] {
			fmt.Fprint(s.out, strings.Join(s.open[e.Package][test], ""))
		}
		fmt.Fprintf(s.out, "FAIL  %6.1f s  %s\n", e.Elapsed, name)
	}
	delete(s.open, e.Package)
}

// finish prints the slowest tests, the skipped ones, and how many packages have passed.
func (s *summary) finish() {
	slices.SortFunc(s.tests, func(a, b result) int { return int(1000 * (b.seconds - a.seconds)) })
	fmt.Fprintf(s.out, "==> the slowest of %d tests\n", len(s.tests))
	for _, test := range s.tests[:min(slowest, len(s.tests))] {
		fmt.Fprintf(s.out, "%12.1f s  %s\n", test.seconds, test.name)
	}
	if len(s.skipped) > 0 {
		fmt.Fprintf(s.out, "==> skipped: %s\n", strings.Join(s.skipped, ", "))
	}
	fmt.Fprintf(s.out, "==> %d of %d packages passed\n", s.packages-len(s.failed), s.packages)
	if len(s.failed) > 0 {
		fmt.Fprintf(s.out, "==> failed: %s\n", strings.Join(s.failed, ", "))
	}
}

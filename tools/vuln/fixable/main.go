// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Fixable reads the JSON output of govulncheck from stdin and prints each known vulnerability that has a fix. It exits with
// 3 if it printed one, and with 1 if the input is not a govulncheck report.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// message is one value of govulncheck's stream, https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck#Message.
type message struct {
	Config  *struct{} `json:"config"`
	Finding *finding  `json:"finding"`
}

type finding struct {
	OSV          string  `json:"osv"`
	FixedVersion string  `json:"fixed_version"`
	Trace        []frame `json:"trace"`
}

// frame is one step of a trace. The first step names the vulnerable module; package and function are empty unless the program
// imports the package or calls the function.
type frame struct {
	Module   string `json:"module"`
	Version  string `json:"version"`
	Package  string `json:"package"`
	Function string `json:"function"`
}

// errNoReport is returned if the input has no config message, which every govulncheck report has.
var errNoReport = errors.New("no govulncheck report on stdin")

func main() {
	found, err := fixable(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fixable:", err)
		os.Exit(1)
	}
	for _, line := range found {
		fmt.Println(line)
	}
	if len(found) > 0 {
		fmt.Println("update the module, or the toolchain line of go.mod for stdlib")
		os.Exit(3)
	}
	fmt.Println("no known vulnerability that has a fix")
}

// fixable returns one line for each vulnerability that has a fix, sorted by ID. A vulnerability in code that the program does
// not call counts too: a later change may call it.
func fixable(report io.Reader) ([]string, error) {
	found := map[string]finding{}
	scanned := false
	decoder := json.NewDecoder(report)
	for {
		var m message
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the report: %w", err)
		}
		scanned = scanned || m.Config != nil
		if f := m.Finding; f != nil && f.FixedVersion != "" && len(f.Trace) > 0 {
			key := f.OSV + " " + f.Trace[0].Module
			if known, exists := found[key]; !exists || f.reach() > known.reach() {
				found[key] = *f
			}
		}
	}
	if !scanned {
		return nil, errNoReport
	}
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(found)) {
		lines = append(lines, found[key].String())
	}
	return lines, nil
}

// reach is 2 if the program calls the vulnerable function, 1 if it imports the package, and 0 otherwise.
func (f finding) reach() int {
	switch {
	case f.Trace[0].Function != "":
		return 2
	case f.Trace[0].Package != "":
		return 1
	}
	return 0
}

func (f finding) String() string {
	at := f.Trace[0]
	reached := [...]string{"", ", imported: " + at.Package, ", called: " + at.Package + "." + at.Function}[f.reach()]
	return fmt.Sprintf("%s  %s@%s, fixed in %s%s", f.OSV, at.Module, at.Version, f.FixedVersion, reached)
}

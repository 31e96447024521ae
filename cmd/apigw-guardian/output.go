// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// Output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatWide  = "wide"
	formatCSV   = "csv"
)

// outputFlag is the flag -o.
type outputFlag struct {
	format string
	// more are the formats that a command has beside table, json and yaml.
	more []string
}

var _ pflag.Value = (*outputFlag)(nil)

func (f *outputFlag) addTo(cmd *cobra.Command) {
	cmd.Flags().VarP(f, "output", "o", oneOf(f.formats()))
}

func (f *outputFlag) formats() []string {
	return append([]string{formatTable, formatJSON, formatYAML}, f.more...)
}

func (f *outputFlag) String() string { return f.format }

func (f *outputFlag) Type() string { return "format" }

func (f *outputFlag) Set(format string) error {
	if !slices.Contains(f.formats(), format) {
		return errors.New("give " + oneOf(f.formats()))
	}
	f.format = format
	return nil
}

// oneOf names a choice: "table, json or yaml".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// print writes a result: as JSON or YAML from its fields, or as table says.
func (f *outputFlag) print(w io.Writer, result any, table func(*printer)) error {
	switch f.format {
	case formatJSON:
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(result); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	case formatYAML:
		data, err := yaml.Marshal(result)
		if err != nil {
			return fmt.Errorf("write the result as YAML: %w", err)
		}
		_, err = w.Write(data)
		return err
	}
	p := &printer{tabs: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	table(p)
	return errors.Join(p.err, p.tabs.Flush())
}

// printer writes lines and aligned rows, and keeps the first error.
type printer struct {
	tabs *tabwriter.Writer
	err  error
}

// line writes text that is not part of a table.
func (p *printer) line(text string) {
	_, err := fmt.Fprintln(p.tabs, text)
	p.err = errors.Join(p.err, err)
}

// row writes one row of a table; columns align with those of the rows beside it.
func (p *printer) row(cells ...string) {
	p.line(strings.Join(cells, "\t"))
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
)

type importFlags struct {
	output     outputFlag
	store      bool
	skipBroken bool
}

// importResult is what audit import prints as JSON and YAML.
type importResult struct {
	*apilog.Report
	// BrokenLines cannot be parsed.
	BrokenLines int `json:"brokenLines"`
	// Stored is how many records were stored; absent without --store.
	Stored *int `json:"stored,omitempty"`
}

func newAuditImport(shared *sharedFlags) *cobra.Command {
	flags := &importFlags{}
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Compare audit records with the API server's audit log",
		Long: `import reads audit logs of kube-apiserver: JSON lines, plain or compressed by gzip; "-" is standard input. It reports which
writes to reserved resources have no record, and which happened while the guard was unavailable. Give the files of all API
servers together. It exits 3 if records are missing, and 0 once --store has stored them.

A line that cannot be parsed may hide a write. import names it, continues, and exits 1, unless you give --skip-broken.`,
		Example: `  apigw-guardian audit import /var/log/kubernetes/audit*.log /var/log/kubernetes/audit*.log.gz
  ssh node zcat /var/log/kubernetes/audit.log.gz | apigw-guardian audit import --store -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s: %w: name the files of the audit log, or - for standard input", cmd.CommandPath(), errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runImport(cmd, shared, flags, args) },
	}
	flags.output.addTo(cmd)
	cmd.Flags().BoolVar(&flags.store, "store", false, "store the missing writes, as records with the source Import")
	cmd.Flags().BoolVar(&flags.skipBroken, "skip-broken", false, "ignore lines that cannot be parsed")
	return cmd
}

func runImport(cmd *cobra.Command, shared *sharedFlags, flags *importFlags, files []string) error {
	store, err := shared.records(cmd.Context())
	if err != nil {
		return err
	}
	source, readErr := readLogs(cmd, shared, files)
	if source == nil {
		return readErr
	}
	// Read the records after the log: the guard records a write before the API server logs it.
	records, err := store.List(cmd.Context(), audit.Filter{})
	if err != nil {
		return errors.Join(readErr, err)
	}
	result := &importResult{Report: source.log.Compare(records), BrokenLines: source.broken}
	if flags.store {
		result.Stored = new(0)
		*result.Stored, err = store.Import(cmd.Context(), result.ToStore())
	}
	if source.broken > 0 && !flags.skipBroken { // exit codes 0 and 3 would claim that the report is complete
		err = errors.Join(err, fmt.Errorf(
			"%d lines cannot be parsed, and may hide writes: if you know what they are, give --skip-broken", source.broken))
	}
	printErr := flags.output.print(cmd.OutOrStdout(), result, func(p *printer) { printImport(p, result) })
	if err := errors.Join(readErr, err, printErr); err != nil {
		return err
	}
	if len(result.Missing) > 0 && !flags.store {
		return errNotAsItShould
	}
	return nil
}

// logFiles reads files into one log.
type logFiles struct {
	log            *apilog.Log
	stdin          io.Reader
	diagnostics    io.Writer
	events, broken int
}

// readLogs returns what the files have, and their errors. It returns nil if they have no event.
func readLogs(cmd *cobra.Command, shared *sharedFlags, files []string) (*logFiles, error) {
	set, err := shared.set()
	if err != nil {
		return nil, err
	}
	source := &logFiles{log: apilog.NewLog(set), stdin: cmd.InOrStdin(), diagnostics: cmd.ErrOrStderr()}
	err = source.read(cmd.Context(), files)
	if ended := cmd.Context().Err(); ended != nil || source.events == 0 {
		return nil, cmp.Or(ended, err, errors.New("nothing was compared: the files have no event"))
	}
	return source, err
}

// read reads all files and joins their errors. If ctx ends, it returns at once: a read from a terminal cannot be cancelled.
func (f *logFiles) read(ctx context.Context, names []string) error {
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, name := range names {
			errs = append(errs, f.open(name))
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *logFiles) open(name string) error {
	if name == "-" {
		return f.add("standard input", f.stdin)
	}
	file, err := os.Open(name)
	if err != nil {
		return err // it names the file
	}
	defer file.Close()
	return f.add(name, file)
}

func (f *logFiles) add(name string, source io.Reader) error {
	reading, err := f.log.Read(source)
	f.events += reading.Events
	f.broken += reading.Broken
	for _, err := range reading.First {
		fmt.Fprintf(f.diagnostics, "%s: %v\n", name, err)
	}
	if more := reading.Broken - len(reading.First); more > 0 {
		fmt.Fprintf(f.diagnostics, "%s: and %d more such lines\n", name, more)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if reading.Events == 0 {
		fmt.Fprintf(f.diagnostics, "%s: there is no event in it\n", name)
	}
	return nil
}

func printImport(p *printer, result *importResult) {
	p.linef("Read %d events, %s to %s.", result.Events, clock(*result.From), clock(*result.To))
	if twice := result.Writes.Duplicates; twice > 0 {
		p.linef("%d events of reserved resources are in the log more than once, and count once.", twice)
	}
	p.line("")
	p.row("WRITES TO RESERVED RESOURCES", "COUNT")
	writes := result.Writes
	for _, row := range []struct {
		what  string
		count int
	}{
		{"denied", writes.Denied},
		{"allowed, with a record", writes.LetThrough},
		{"allowed, without a record", writes.Passed},
		{"allowed by the guard, refused by the API server", writes.Refused},
		{"made without asking the guard", writes.Unguarded},
		{"refused because the guard did not answer", writes.Failed},
		{"dry runs, without a record", writes.DryRuns},
		{"unclear from the log", writes.Unclear},
	} {
		p.row(row.what, strconv.Itoa(row.count))
	}
	if len(result.Away) > 0 {
		p.line("")
		p.row("GUARD UNAVAILABLE FROM", "TO", "REFUSED", "UNGUARDED")
	}
	for _, span := range result.Away {
		p.row(clock(span.From), clock(span.To), strconv.Itoa(span.Failed), strconv.Itoa(span.Unguarded))
	}
	printDifferences(p, "MISSING", result.Missing)
	printDifferences(p, "SURPLUS", result.Surplus)
	p.line("")
	p.line(result.sentence())
}

func printDifferences(p *printer, title string, differences []apilog.Difference) {
	if len(differences) == 0 {
		return
	}
	p.line("")
	p.row(title, "LOGGED", "OUTCOME", "OPERATION", "RESOURCE", "USER", "REASON", "LAST SEEN", "RECORD")
	for _, d := range differences {
		p.row(strconv.FormatInt(max(d.Logged-d.Recorded, d.Recorded-d.Logged), 10), strconv.FormatInt(d.Logged, 10),
			string(d.Outcome), string(d.Operation), d.Resource, d.User, d.Reason, clock(d.LastTime), d.Record)
	}
}

// sentence is the last line of the report.
func (r *importResult) sentence() string {
	var writes int64
	for _, d := range r.Missing {
		writes += d.Logged - d.Recorded
	}
	switch {
	case len(r.Missing) == 0:
		return fmt.Sprintf("Nothing is missing: the records have every write of the log (%d agree exactly).", r.Agreeing)
	case r.Stored == nil:
		return fmt.Sprintf("%d writes have no record. To store them as %d records, give --store.", writes, len(r.Missing))
	case *r.Stored < len(r.Missing):
		return fmt.Sprintf("Stored %d of %d records.", *r.Stored, len(r.Missing))
	default:
		return fmt.Sprintf("Stored the %d missing writes as %d records with the source Import.", writes, *r.Stored)
	}
}

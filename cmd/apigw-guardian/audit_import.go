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
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// importFlags are those of audit import.
type importFlags struct {
	output     outputFlag
	store      bool
	skipBroken bool
}

// importResult is what audit import prints as JSON and YAML.
type importResult struct {
	*apilog.Report
	// BrokenLines could not be read.
	BrokenLines int `json:"brokenLines"`
	// Stored is the number of records that were stored; absent without --store.
	Stored *int `json:"stored,omitempty"`
}

func newAuditImport(shared *sharedFlags) *cobra.Command {
	flags := &importFlags{output: outputFlag{format: formatTable}}
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Hold the records against the API server's own audit log",
		Long: `import reads audit logs of kube-apiserver (JSON lines, compressed by gzip or not; "-" is standard input), and reports
which writes to reserved resources the records lack, and what happened while the guard was away. Give the files of all API
servers together. It exits 3 if something is missing, and 0 once --store has stored it.

A line that cannot be read may hide a write: import names it, reads on, and exits 1, unless --skip-broken says that the line
is known.`,
		Example: `  apigw-guardian audit import /var/log/kubernetes/audit*.log /var/log/kubernetes/audit*.log.gz
  ssh node zcat /var/log/kubernetes/audit.log.gz | apigw-guardian audit import --store -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s: %w: which audit log? Name its files, or - for standard input", cmd.CommandPath(), errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runImport(cmd, shared, flags, args) },
	}
	flags.output.addTo(cmd)
	cmd.Flags().BoolVar(&flags.store, "store", false, "store what is missing, as records with the source Import")
	cmd.Flags().BoolVar(&flags.skipBroken, "skip-broken", false, "take lines that cannot be read for no failure")
	return cmd
}

func runImport(cmd *cobra.Command, shared *sharedFlags, flags *importFlags, files []string) error {
	set, err := shared.set()
	if err != nil {
		return err
	}
	store, err := shared.records()
	if err != nil {
		return err
	}
	reading := &logReading{log: apilog.NewLog(set), stdin: cmd.InOrStdin(), diagnostics: cmd.ErrOrStderr()}
	readErr := reading.files(cmd.Context(), files)
	if err := cmd.Context().Err(); err != nil || reading.events == 0 {
		return cmp.Or(err, readErr, errors.New("nothing was compared: there is no event in what was given"))
	}
	// The records are read after the log: a write was recorded before the API server noted it.
	records, err := store.List(cmd.Context(), audit.Filter{})
	if err != nil {
		return errors.Join(readErr, err)
	}
	result := &importResult{Report: reading.log.Compare(records), BrokenLines: reading.broken}
	if flags.store {
		err = result.storeMissing(cmd.Context(), store)
	}
	printErr := flags.output.print(cmd.OutOrStdout(), result, func(p *printer) { printImport(p, result) })
	if err := errors.Join(readErr, err, printErr, flags.complain(reading)); err != nil {
		return err
	}
	if len(result.Missing) > 0 && !flags.store {
		return errNotAsItShould
	}
	return nil
}

// complain says that the report may lack something: an exit code of 0 or 3 would claim that it does not.
func (f *importFlags) complain(reading *logReading) error {
	if reading.broken == 0 || f.skipBroken {
		return nil
	}
	return fmt.Errorf("%d of the lines cannot be read, and may hide writes: if you know what they are, give --skip-broken",
		reading.broken)
}

// storeMissing stores what it can until the first error; the rest is stored when the same command runs again.
func (r *importResult) storeMissing(ctx context.Context, store *store.Store) error {
	r.Stored = new(0)
	for _, record := range r.ToStore() {
		_, err := store.Merge(ctx, record, nil)
		if errors.Is(err, audit.ErrAltered) {
			record.Name = audit.SecondName(record.Name)
			_, err = store.Merge(ctx, record, nil)
		}
		if err != nil {
			return err
		}
		*r.Stored++
	}
	return nil
}

// logReading reads files into one log.
type logReading struct {
	log            *apilog.Log
	stdin          io.Reader
	diagnostics    io.Writer
	events, broken int
}

// files reads all that can be read. The error joins those of the files that could not be read to their end. When ctx ends,
// it returns at once and the reading is of no use any more: a read from a terminal cannot be called off.
func (r *logReading) files(ctx context.Context, names []string) error {
	done := make(chan error, 1)
	go func() {
		var errs []error
		for _, name := range names {
			errs = append(errs, r.file(name))
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

func (r *logReading) file(name string) error {
	if name == "-" {
		return r.read("standard input", r.stdin)
	}
	file, err := os.Open(name)
	if err != nil {
		return err // it names the file
	}
	defer file.Close()
	return r.read(name, file)
}

// errNoAuditLog says that a file is of another kind.
var errNoAuditLog = errors.New("this is no audit log of kube-apiserver in its format json: not one line is an event")

// read reads one file to its end. Errors name it.
func (r *logReading) read(name string, source io.Reader) error {
	events, lines := 0, brokenLines{}
	var end error
	for event, err := range apilog.Events(source) {
		var line *apilog.LineError
		switch {
		case err == nil:
			events++
			r.log.Add(event)
		case errors.As(err, &line):
			lines.note(err)
		default:
			end = fmt.Errorf("%s: %w", name, err)
		}
	}
	r.events += events
	switch {
	case events == 0 && lines.count > 0:
		return errors.Join(fmt.Errorf("%s: %w (%w)", name, errNoAuditLog, lines.first[0]), end)
	case events == 0 && end == nil:
		fmt.Fprintf(r.diagnostics, "%s: there is no event in it\n", name)
	}
	r.broken += lines.count
	lines.print(r.diagnostics, name)
	return end
}

// maxNamedLines is how many broken lines of a file are named: a file may have millions.
const maxNamedLines = 10

// brokenLines are the lines of one file that could not be read.
type brokenLines struct {
	count int
	first []error
}

func (b *brokenLines) note(err error) {
	b.count++
	if len(b.first) < maxNamedLines {
		b.first = append(b.first, err)
	}
}

func (b *brokenLines) print(w io.Writer, name string) {
	for _, err := range b.first {
		fmt.Fprintf(w, "%s: %v\n", name, err)
	}
	if more := b.count - len(b.first); more > 0 {
		fmt.Fprintf(w, "%s: and %d more such lines\n", name, more)
	}
}

func printImport(p *printer, result *importResult) {
	p.line(fmt.Sprintf("Read %d events, %s to %s.", result.Events, clock(*result.From), clock(*result.To)))
	if twice := result.Writes.Duplicates; twice > 0 {
		p.line(fmt.Sprintf("%d events about reserved resources stand there more than once, and count once.", twice))
	}
	p.line("")
	printWrites(p, result.Writes)
	if len(result.Away) > 0 {
		p.line("")
		printAway(p, result.Away)
	}
	for _, part := range []struct {
		title       string
		differences []apilog.Difference
	}{{"MISSING", result.Missing}, {"SURPLUS", result.Surplus}} {
		if len(part.differences) > 0 {
			p.line("")
			printDifferences(p, part.title, part.differences)
		}
	}
	p.line("")
	p.line(result.sentence())
}

func printWrites(p *printer, writes apilog.Counts) {
	p.row("WRITES TO RESERVED RESOURCES", "COUNT")
	for _, row := range []struct {
		what  string
		count int
	}{
		{"denied", writes.Denied},
		{"let through, and recorded", writes.LetThrough},
		{"of no harm, and not recorded", writes.Passed},
		{"made without asking the guard", writes.Unguarded},
		{"refused, as the guard did not answer", writes.Failed},
		{"dry runs, which leave no record", writes.DryRuns},
		{"unclear: the log does not say enough", writes.Unclear},
	} {
		p.row(row.what, strconv.Itoa(row.count))
	}
}

func printAway(p *printer, spans []apilog.Span) {
	p.row("GUARD AWAY FROM", "TO", "REFUSED", "UNGUARDED")
	for _, span := range spans {
		p.row(clock(span.From), clock(span.To), strconv.Itoa(span.Failed), strconv.Itoa(span.Unguarded))
	}
}

func printDifferences(p *printer, title string, differences []apilog.Difference) {
	p.row(title, "LOGGED", "OUTCOME", "OPERATION", "RESOURCE", "USER", "REASON", "LAST SEEN", "RECORD")
	for _, d := range differences {
		p.row(strconv.FormatInt(max(d.Logged-d.Recorded, d.Recorded-d.Logged), 10), strconv.FormatInt(d.Logged, 10),
			string(d.Outcome), string(d.Operation), d.Resource, d.User, d.Reason, clock(d.LastTime), d.Record)
	}
}

// sentence is the last line: what there is to do.
func (r *importResult) sentence() string {
	var writes int64
	for _, d := range r.Missing {
		writes += d.Logged - d.Recorded
	}
	switch {
	case len(r.Missing) == 0:
		return fmt.Sprintf("Nothing is missing: the records have every write that the log has (%d agree exactly).", r.Agreeing)
	case r.Stored == nil:
		return fmt.Sprintf("The records lack %d writes. To store them, as %d records: give --store.", writes, len(r.Missing))
	case *r.Stored < len(r.Missing):
		return fmt.Sprintf("Stored %d of %d records.", *r.Stored, len(r.Missing))
	default:
		return fmt.Sprintf("Stored the %d writes that were missing, as %d records with the source Import.", writes, *r.Stored)
	}
}

func clock(at metav1.MicroTime) string { return at.UTC().Format(time.RFC3339) }

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package export writes audit records in the formats that other programs read.
package export

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Format is a file format.
type Format string

const (
	// JSONL is one AuditRecord as JSON per line.
	JSONL Format = "jsonl"
	// CSV has a header and one line per record. A cell that a spreadsheet would take for a formula begins with an apostrophe.
	CSV Format = "csv"
	// ocsf is one event of the class API Activity of the Open Cybersecurity Schema Framework per line.
	ocsf Format = "ocsf"
	// cloudEvents is one event of CloudEvents 1.0, in its JSON format, per line.
	cloudEvents Format = "cloudevents"
)

// Formats returns all formats, in the order for help texts.
func Formats() []Format { return []Format{JSONL, CSV, ocsf, cloudEvents} }

// Origin says where records come from.
type Origin struct {
	// Version is the product's.
	Version string
	// Cluster is the name of the cluster; "" if it has none.
	Cluster string
}

// Write writes the records in their order. It writes nothing in an unknown format.
func Write(w io.Writer, format Format, origin Origin, records []v1alpha1.AuditRecord) error {
	switch format {
	case JSONL:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return line{Cluster: origin.Cluster, AuditRecord: record} })
	case CSV:
		return writeCSV(w, origin, records)
	case ocsf:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return newAPIActivity(record, origin) })
	case cloudEvents:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return newCloudEvent(record, origin) })
	}
	return fmt.Errorf("unknown format %q", format)
}

// line is a record, and the cluster that has it.
type line struct {
	Cluster string `json:"cluster,omitempty"`
	*v1alpha1.AuditRecord
}

func writeLines(w io.Writer, records []v1alpha1.AuditRecord, event func(*v1alpha1.AuditRecord) any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for i := range records {
		if err := encoder.Encode(event(&records[i])); err != nil {
			return fmt.Errorf("export audit record %q: %w", records[i].Name, err)
		}
	}
	return nil
}

// EventID changes when the record counts more. Records of two clusters may have the same name, but not the same uid.
func EventID(record *v1alpha1.AuditRecord) string {
	return fmt.Sprintf("%s.%d", cmp.Or(string(record.UID), record.Name), record.Spec.Count)
}

// newCloudEvent returns an event of https://github.com/cloudevents/spec, version 1.0, in its JSON format.
func newCloudEvent(record *v1alpha1.AuditRecord, origin Origin) fields {
	source := "/apis/" + v1alpha1.Group + "/" + v1alpha1.Version + "/auditrecords"
	if origin.Cluster != "" {
		source = "/clusters/" + url.PathEscape(origin.Cluster) + source
	}
	return fields{
		"specversion": "1.0",
		"id":          EventID(record),
		// The cluster, and where its API server serves records. The reference is relative because a cluster does not know its address.
		"source":          source,
		"type":            EventType(record),
		"subject":         record.Spec.Resource,
		"time":            timestamp(record.Spec.LastTime),
		"datacontenttype": "application/json",
		"data":            record,
	}.compact()
}

// EventType names what the record states, such as io.apigw.guardian.audit.denied.
func EventType(record *v1alpha1.AuditRecord) string {
	return "io.apigw.guardian.audit." + strings.ToLower(string(record.Spec.Outcome))
}

// Cells returns the fields of a record by the names of the columns of CSV.
func Cells(record *v1alpha1.AuditRecord) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, c := range columns() {
			if !yield(c.name, c.cell(record)) {
				return
			}
		}
	}
}

// column is one column of the CSV format. Scripts depend on names and order: add new columns at the end.
type column struct {
	name string
	cell func(record *v1alpha1.AuditRecord) string
}

func columns() []column {
	return []column{
		{"name", func(r *v1alpha1.AuditRecord) string { return r.Name }},
		{"outcome", func(r *v1alpha1.AuditRecord) string { return string(r.Spec.Outcome) }},
		{"operation", func(r *v1alpha1.AuditRecord) string { return string(r.Spec.Operation) }},
		{"resource", func(r *v1alpha1.AuditRecord) string { return r.Spec.Resource }},
		{"changed", func(r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.Changed, " ") }},
		{"reason", func(r *v1alpha1.AuditRecord) string { return r.Spec.Reason }},
		{"message", func(r *v1alpha1.AuditRecord) string { return r.Spec.Message }},
		{"user", func(r *v1alpha1.AuditRecord) string { return r.Spec.User.Name }},
		{"userUID", func(r *v1alpha1.AuditRecord) string { return r.Spec.User.UID }},
		{"groups", func(r *v1alpha1.AuditRecord) string { return strings.Join(r.Spec.User.Groups, " ") }},
		{"firstTime", func(r *v1alpha1.AuditRecord) string { return timestamp(r.Spec.FirstTime) }},
		{"lastTime", func(r *v1alpha1.AuditRecord) string { return timestamp(r.Spec.LastTime) }},
		{"count", func(r *v1alpha1.AuditRecord) string { return strconv.FormatInt(r.Spec.Count, 10) }},
		{"lastRequestUID", func(r *v1alpha1.AuditRecord) string { return r.Spec.LastRequestUID }},
		{"replica", func(r *v1alpha1.AuditRecord) string { return r.Spec.Replica }},
		{"source", func(r *v1alpha1.AuditRecord) string { return string(r.Spec.Source) }},
		{"caller", func(r *v1alpha1.AuditRecord) string { return string(r.Spec.Caller) }},
		{"unlock", func(r *v1alpha1.AuditRecord) string { return r.Spec.Unlock }},
		{"justification", func(r *v1alpha1.AuditRecord) string { return r.Spec.Justification }},
		{"userExtra", func(r *v1alpha1.AuditRecord) string { return strings.Join(audit.ExtraLines(&r.Spec.User), " ") }},
	}
}

func writeCSV(w io.Writer, origin Origin, records []v1alpha1.AuditRecord) error {
	writer := csv.NewWriter(w)
	all := append(columns(), column{"cluster", func(*v1alpha1.AuditRecord) string { return origin.Cluster }})
	row := make([]string, len(all))
	for i := range all {
		row[i] = all[i].name
	}
	_ = writer.Write(row) // the writer keeps its first error for Flush
	for i := range records {
		for j := range all {
			row[j] = noFormula(all[j].cell(&records[i]))
		}
		_ = writer.Write(row)
	}
	writer.Flush()
	if err := writer.Error(); err != nil {
		return fmt.Errorf("export audit records as CSV: %w", err)
	}
	return nil
}

// noFormula prevents that a spreadsheet runs a user's name as a formula, as
// https://owasp.org/www-community/attacks/CSV_Injection proposes.
func noFormula(cell string) string {
	if cell != "" && strings.ContainsAny(string([]rune(cell)[:1]), "=+-@\t\r\n＝＋－＠") {
		return "'" + cell
	}
	return cell
}

// timestamp is RFC 3339 with microseconds, in UTC; "" for no time.
func timestamp(t metav1.MicroTime) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(metav1.RFC3339Micro)
}

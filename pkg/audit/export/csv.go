// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

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
	}
}

func writeCSV(w io.Writer, records []v1alpha1.AuditRecord) error {
	writer := csv.NewWriter(w)
	all := columns()
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

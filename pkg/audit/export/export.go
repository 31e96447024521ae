// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package export writes audit records in the formats that other programs read.
package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Format is a way to write records.
type Format string

// Formats.
const (
	// JSONL is one AuditRecord as JSON to a line.
	JSONL Format = "jsonl"
	// CSV has a header line and one line to a record. A cell that a spreadsheet would take for a formula begins with an apostrophe.
	CSV Format = "csv"
	// OCSF is one event of the class API Activity of the Open Cybersecurity Schema Framework to a line.
	OCSF Format = "ocsf"
	// CloudEvents is one event of CloudEvents 1.0, in its JSON format, to a line.
	CloudEvents Format = "cloudevents"
)

// Formats returns all formats, in the order in which people should read them.
func Formats() []Format { return []Format{JSONL, CSV, OCSF, CloudEvents} }

// ErrUnknownFormat says that there is no such format.
var ErrUnknownFormat = errors.New("there is no such format")

// Write writes the records in their order. version is the product's, for formats that name it. The error is the writer's, or wraps
// ErrUnknownFormat; then nothing was written.
func Write(w io.Writer, format Format, version string, records []v1alpha1.AuditRecord) error {
	switch format {
	case JSONL:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return record })
	case CSV:
		return writeCSV(w, records)
	case OCSF:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return newAPIActivity(record, version) })
	case CloudEvents:
		return writeLines(w, records, func(record *v1alpha1.AuditRecord) any { return newCloudEvent(record) })
	}
	return fmt.Errorf("format %q: %w", format, ErrUnknownFormat)
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

// eventID is the same for the same state of a record, and new once the record counts more. The uid tells clusters apart: in
// two of them, records may well have one name.
func eventID(record *v1alpha1.AuditRecord) string {
	id := string(record.UID)
	if id == "" {
		id = record.Name
	}
	return id + "." + strconv.FormatInt(record.Spec.Count, 10)
}

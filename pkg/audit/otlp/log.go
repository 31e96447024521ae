// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"time"

	collectorv1 "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/slim/otlp/resource/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
)

// requestOf returns the records as logs of one resource, the guard of this cluster.
func requestOf(origin export.Origin, records []v1alpha1.AuditRecord, now time.Time) *collectorv1.ExportLogsServiceRequest {
	logs := make([]*logsv1.LogRecord, len(records))
	for i := range records {
		logs[i] = logOf(&records[i], now)
	}
	resource := &resourcev1.Resource{Attributes: attributes("service.name", guardian.Name, "service.version", origin.Version,
		"k8s.cluster.name", origin.Cluster)}
	scope := &commonv1.InstrumentationScope{Name: guardian.Group, Version: v1alpha1.Version}
	return &collectorv1.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{
		Resource: resource, ScopeLogs: []*logsv1.ScopeLogs{{Scope: scope, LogRecords: logs}},
	}}}
}

// logOf returns one record, as it is now, as a log. Its log.record.uid is the same whenever the same state of the record is sent, so that a
// log store can drop what it has twice: https://opentelemetry.io/docs/specs/semconv/general/logs.
func logOf(record *v1alpha1.AuditRecord, now time.Time) *logsv1.LogRecord {
	severity := logsv1.SeverityNumber_SEVERITY_NUMBER_WARN
	if record.Spec.Outcome.IsAllowed() {
		severity = logsv1.SeverityNumber_SEVERITY_NUMBER_INFO
	}
	all := attributes("log.record.uid", export.EventID(record), "user.name", record.Spec.User.Name)
	for name, value := range export.Cells(record) {
		all = append(all, attributes("guardian."+name, value)...)
	}
	return &logsv1.LogRecord{
		TimeUnixNano:         nano(record.Spec.LastTime.Time),
		ObservedTimeUnixNano: nano(now),
		SeverityNumber:       severity,
		SeverityText:         string(record.Spec.Outcome),
		EventName:            export.EventType(record),
		Body:                 textOf(record.Spec.Message),
		Attributes:           all,
	}
}

// nano returns 0, which OTLP defines as unknown, for a time before 1970.
func nano(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }

// attributes takes pairs of a name and a value, and leaves out empty values.
func attributes(pairs ...string) []*commonv1.KeyValue {
	var all []*commonv1.KeyValue
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			all = append(all, &commonv1.KeyValue{Key: pairs[i], Value: textOf(pairs[i+1])})
		}
	}
	return all
}

func textOf(value string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// cloudEvent is an event of https://github.com/cloudevents/spec, version 1.0, in its JSON format.
type cloudEvent struct {
	SpecVersion     string                `json:"specversion"`
	ID              string                `json:"id"`
	Source          string                `json:"source"`
	Type            string                `json:"type"`
	Subject         string                `json:"subject,omitempty"`
	Time            string                `json:"time,omitempty"`
	DataContentType string                `json:"datacontenttype"`
	Data            *v1alpha1.AuditRecord `json:"data"`
}

// cloudEventSource is where the API server serves records: a relative reference, as a cluster does not know its own address.
const cloudEventSource = "/apis/" + v1alpha1.Group + "/" + v1alpha1.Version + "/auditrecords"

// cloudEventType is followed by the outcome, as in "io.apigw.guardian.audit.denied".
const cloudEventType = "io.apigw.guardian.audit."

func newCloudEvent(record *v1alpha1.AuditRecord) *cloudEvent {
	return &cloudEvent{
		SpecVersion:     "1.0",
		ID:              eventID(record),
		Source:          cloudEventSource,
		Type:            cloudEventType + strings.ToLower(string(record.Spec.Outcome)),
		Subject:         record.Spec.Resource,
		Time:            timestamp(record.Spec.LastTime),
		DataContentType: "application/json",
		Data:            record,
	}
}

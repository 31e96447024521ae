// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// newCloudEvent returns an event of https://github.com/cloudevents/spec, version 1.0, in its JSON format.
func newCloudEvent(record *v1alpha1.AuditRecord) fields {
	return fields{
		"specversion": "1.0",
		"id":          eventID(record),
		// Where the API server serves records. The reference is relative because a cluster does not know its address.
		"source":          "/apis/" + v1alpha1.Group + "/" + v1alpha1.Version + "/auditrecords",
		"type":            "io.apigw.guardian.audit." + strings.ToLower(string(record.Spec.Outcome)),
		"subject":         record.Spec.Resource,
		"time":            timestamp(record.Spec.LastTime),
		"datacontenttype": "application/json",
		"data":            record,
	}.compact()
}

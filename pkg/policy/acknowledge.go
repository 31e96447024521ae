// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// RecordResource returns the type of audit records.
func RecordResource() schema.GroupVersionResource {
	return v1alpha1.GroupVersion().WithResource("auditrecords")
}

// maxSkew is how many nanoseconds the time of an acknowledgement may differ from the guard's: a minute, for clocks that differ.
const maxSkew = 60_000_000_000

// acknowledgementProblem says why a write to the status of a record is denied; "" for one that is allowed. The guard's own writes do not
// reach it.
func acknowledgementProblem(r *Request, facts Facts) string {
	record, old := &v1alpha1.AuditRecord{}, &v1alpha1.AuditRecord{}
	if r.GVR != RecordResource() || r.Operation != admissionv1.Update || r.Subresource != "status" ||
		decodeResource(r.Object, record, false) != nil || decodeResource(r.OldObject, old, false) != nil {
		return "the request cannot be read"
	}
	before, after := old.Status.Acknowledgements, record.Status.Acknowledgements
	switch {
	case len(after) < len(before) || len(before) > 0 && !equality.Semantic.DeepEqual(before, after[:len(before)]):
		return "an acknowledgement cannot be changed or removed: add another one"
	case len(after) == len(before):
		return ""
	case len(after) > len(before)+1:
		return "one write can add one acknowledgement"
	}
	added := &after[len(before)]
	age := facts.Now.Sub(added.At.Time)
	switch {
	case added.By != r.User.Name:
		return fmt.Sprintf("by must be %q, the user that acknowledges it", text.Printable(r.User.Name, maxName))
	case age > maxSkew || age < -maxSkew:
		return fmt.Sprintf("at must be the present time, %s", facts.Now.UTC().Format("2006-01-02T15:04:05Z"))
	case added.Count < 1 || added.Count > old.Spec.Count:
		return fmt.Sprintf("count must not be more than the record counts, %d", old.Spec.Count)
	case strings.TrimSpace(added.Note) == "":
		return "note must say what you found out"
	}
	return ""
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Sources: https://schema.ocsf.io/1.8.0/classes/api_activity and https://schema.ocsf.io/1.8.0/profiles/security_control.
const (
	ocsfVersion   = "1.8.0"
	ocsfCategory  = 6
	ocsfClass     = 6003
	ocsfClassName = "API Activity"
	ocsfUnknown   = "unknown" // for a required text without a value
)

type fields map[string]any

// compact removes empty texts, lists and objects, which the schema does not allow.
func (f fields) compact() fields {
	for name, value := range f {
		if inner, ok := value.(fields); ok {
			inner.compact()
		}
		switch v := reflect.ValueOf(value); v.Kind() {
		case reflect.String, reflect.Slice, reflect.Map:
			if v.Len() == 0 {
				delete(f, name)
			}
		}
	}
	return f
}

// choice is a value of one of the schema's closed lists, and its caption.
type choice struct {
	id   int
	name string
}

// newAPIActivity returns an event of API Activity with the profile Security Control. Times are milliseconds since 1970.
func newAPIActivity(record *v1alpha1.AuditRecord, origin Origin) fields {
	spec := &record.Spec
	activity, severity, result := activityOf(spec.Operation), severityOf(spec), resultOf(spec.Outcome)
	return fields{
		"category_uid": ocsfCategory, "category_name": "Application Activity",
		"class_uid": ocsfClass, "class_name": ocsfClassName,
		"activity_id": activity.id, "activity_name": activity.name,
		"type_uid": ocsfClass*100 + activity.id, "type_name": ocsfClassName + ": " + activity.name,

		"time": spec.LastTime.UnixMilli(), "start_time": spec.FirstTime.UnixMilli(), "end_time": spec.LastTime.UnixMilli(),
		"count": spec.Count,

		"severity_id": severity.id, "severity": severity.name,
		"status_id": result.status.id, "status": result.status.name, "status_detail": spec.Reason,
		"action_id": result.action.id, "action": result.action.name,
		"disposition_id": result.disposition.id, "disposition": result.disposition.name,
		"is_alert": severity.id >= high().id,
		"message":  spec.Message,

		"metadata": fields{
			"version":  ocsfVersion,
			"product":  fields{"name": guardian.Name, "vendor_name": "The apigw-guardian Authors", "version": origin.Version},
			"profiles": []string{"security_control"}, "tenant_uid": origin.Cluster,
			"uid": EventID(record), "event_code": spec.Reason, "log_name": "auditrecords." + v1alpha1.Group,
		},
		"actor":     fields{"user": userOf(spec.User)},
		"api":       apiOf(spec),
		"resources": resourcesOf(spec.Object),
		// An admission review does not have the address of the client. The API server's audit log has it.
		"src_endpoint": fields{"name": ocsfUnknown},
		// The schema has no place for these.
		"unmapped": fields{
			"record": record.Name, "outcome": spec.Outcome, "changed": spec.Changed, "replica": spec.Replica, "source": spec.Source,
			"caller": spec.Caller, "unlock": spec.Unlock, "justification": spec.Justification, "user_extra": spec.User.Extra,
		},
	}.compact()
}

func activityOf(operation admissionv1.Operation) choice {
	switch operation {
	case admissionv1.Create:
		return choice{1, "Create"}
	case admissionv1.Update:
		return choice{3, "Update"}
	case admissionv1.Delete:
		return choice{4, "Delete"}
	}
	return choice{0, "Unknown"}
}

func high() choice { return choice{4, "High"} }

// severityOf is high for a new credential and for what passed the guard, medium for a denial, low for a write allowed on purpose.
func severityOf(spec *v1alpha1.AuditRecordSpec) choice {
	switch {
	case spec.Reason == string(policy.TokenMint), spec.Outcome == v1alpha1.Unguarded, spec.Outcome == v1alpha1.Tampered,
		spec.Outcome == v1alpha1.Drift:
		return high()
	case spec.Outcome.IsAllowed(), spec.Reason == string(policy.NamespaceTerminating):
		return choice{1, "Informational"}
	}
	return choice{3, "Medium"}
}

// result is the outcome in the schema's words.
type result struct{ status, action, disposition choice }

func resultOf(outcome v1alpha1.Outcome) result {
	success, allowed := choice{1, "Success"}, choice{1, "Allowed"}
	switch outcome {
	case v1alpha1.Denied:
		return result{choice{2, "Failure"}, choice{2, "Denied"}, choice{2, "Blocked"}}
	case v1alpha1.WouldDeny:
		return result{success, allowed, choice{15, "Detected"}}
	case v1alpha1.Unlocked, v1alpha1.Exempted, v1alpha1.Rotated, v1alpha1.Retired:
		return result{success, allowed, choice{8, "Approved"}}
	case v1alpha1.Restored, v1alpha1.Authorized, v1alpha1.Allowed:
		return result{success, allowed, choice{1, "Allowed"}}
	case v1alpha1.Unguarded, v1alpha1.Tampered, v1alpha1.Drift, v1alpha1.Gap:
		return result{success, allowed, choice{16, "No Action"}}
	}
	unknown := choice{0, "Unknown"}
	return result{unknown, unknown, unknown}
}

func userOf(user v1alpha1.User) fields {
	kind := userType(user)
	var groups []fields
	for _, group := range user.Groups {
		groups = append(groups, fields{"name": group})
	}
	return fields{"name": cmp.Or(user.Name, ocsfUnknown), "uid": user.UID, "type_id": kind.id, "type": kind.name, "groups": groups}
}

func userType(user v1alpha1.User) choice {
	switch {
	case user.Name == "":
		return choice{0, "Unknown"}
	case strings.HasPrefix(user.Name, "system:serviceaccount:"):
		return choice{4, "Service"}
	case strings.HasPrefix(user.Name, "system:"):
		return choice{3, "System"}
	case slices.Contains(user.Groups, "system:masters"):
		return choice{2, "Admin"}
	}
	return choice{1, "User"}
}

func apiOf(spec *v1alpha1.AuditRecordSpec) fields {
	api := fields{
		"operation": cmp.Or(strings.ToLower(string(spec.Operation)), ocsfUnknown),
		"service":   fields{"name": "kube-apiserver"},
		"request":   fields{"uid": spec.LastRequestUID},
	}
	if spec.Outcome == v1alpha1.Denied {
		api["response"] = fields{"code": 403, "error": "Forbidden", "message": spec.Message}
	}
	return api
}

func resourcesOf(object v1alpha1.ObjectReference) []fields {
	if object == (v1alpha1.ObjectReference{}) {
		return nil
	}
	return []fields{fields{"type": object.GroupResource().String(), "namespace": object.Namespace, "name": object.Name}.compact()}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"cmp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// What an event says about itself. Sources: https://schema.ocsf.io/1.8.0/classes/api_activity and
// https://schema.ocsf.io/1.8.0/profiles/security_control.
const (
	ocsfVersion     = "1.8.0"
	ocsfCategory    = 6
	ocsfClass       = 6003
	ocsfUnknown     = "unknown" // what the schema has for a required text that nobody knows
	ocsfProductName = guardian.Name
)

// apiActivity is an event of the class API Activity with the profile Security Control.
type apiActivity struct {
	CategoryUID  int    `json:"category_uid"`
	CategoryName string `json:"category_name"`
	ClassUID     int    `json:"class_uid"`
	ClassName    string `json:"class_name"`
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	TypeUID      int    `json:"type_uid"`
	TypeName     string `json:"type_name"`
	// Time, StartTime and EndTime are milliseconds since 1970.
	Time      int64 `json:"time"`
	StartTime int64 `json:"start_time"`
	EndTime   int64 `json:"end_time"`
	Count     int64 `json:"count"`

	SeverityID    int    `json:"severity_id"`
	Severity      string `json:"severity"`
	StatusID      int    `json:"status_id"`
	Status        string `json:"status"`
	StatusDetail  string `json:"status_detail,omitempty"`
	ActionID      int    `json:"action_id"`
	Action        string `json:"action"`
	DispositionID int    `json:"disposition_id"`
	Disposition   string `json:"disposition"`
	IsAlert       bool   `json:"is_alert"`
	Message       string `json:"message,omitempty"`

	Metadata    ocsfMetadata   `json:"metadata"`
	Actor       ocsfActor      `json:"actor"`
	API         ocsfAPI        `json:"api"`
	Resources   []ocsfResource `json:"resources,omitempty"`
	SrcEndpoint ocsfEndpoint   `json:"src_endpoint"`
	Unmapped    ocsfUnmapped   `json:"unmapped"`
}

type ocsfMetadata struct {
	Version   string      `json:"version"`
	Product   ocsfProduct `json:"product"`
	Profiles  []string    `json:"profiles"`
	UID       string      `json:"uid"`
	EventCode string      `json:"event_code,omitempty"`
	LogName   string      `json:"log_name"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version,omitempty"`
}

type ocsfActor struct {
	User ocsfUser `json:"user"`
}

type ocsfUser struct {
	Name   string      `json:"name"`
	UID    string      `json:"uid,omitempty"`
	TypeID int         `json:"type_id"`
	Type   string      `json:"type"`
	Groups []ocsfGroup `json:"groups,omitempty"`
}

type ocsfGroup struct {
	Name string `json:"name"`
}

type ocsfAPI struct {
	Operation string        `json:"operation"`
	Service   ocsfService   `json:"service"`
	Request   *ocsfRequest  `json:"request,omitempty"`
	Response  *ocsfResponse `json:"response,omitempty"`
}

type ocsfService struct {
	Name string `json:"name"`
}

type ocsfRequest struct {
	UID string `json:"uid"`
}

type ocsfResponse struct {
	Code    int    `json:"code"`
	Error   string `json:"error"`
	Message string `json:"message,omitempty"`
}

type ocsfResource struct {
	Type      string `json:"type"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

type ocsfEndpoint struct {
	Name string `json:"name"`
}

// ocsfUnmapped is what the schema has no place for, under the names of the record.
type ocsfUnmapped struct {
	Record  string           `json:"record"`
	Outcome v1alpha1.Outcome `json:"outcome"`
	Changed []string         `json:"changed,omitempty"`
	Replica string           `json:"replica,omitempty"`
	Source  v1alpha1.Source  `json:"source,omitempty"`
	Caller  v1alpha1.Caller  `json:"caller,omitempty"`
}

// choice is a value of one of the schema's closed lists, and its caption.
type choice struct {
	id   int
	name string
}

func newAPIActivity(record *v1alpha1.AuditRecord, version string) *apiActivity {
	spec := &record.Spec
	activity, severity, verdict := activityOf(spec.Operation), severityOf(spec), verdictOf(spec.Outcome)
	const className = "API Activity"
	return &apiActivity{
		CategoryUID: ocsfCategory, CategoryName: "Application Activity",
		ClassUID: ocsfClass, ClassName: className,
		ActivityID: activity.id, ActivityName: activity.name,
		TypeUID: ocsfClass*100 + activity.id, TypeName: className + ": " + activity.name,

		Time: spec.LastTime.UnixMilli(), StartTime: spec.FirstTime.UnixMilli(), EndTime: spec.LastTime.UnixMilli(),
		Count: spec.Count,

		SeverityID: severity.id, Severity: severity.name,
		StatusID: verdict.status.id, Status: verdict.status.name, StatusDetail: spec.Reason,
		ActionID: verdict.action.id, Action: verdict.action.name,
		DispositionID: verdict.disposition.id, Disposition: verdict.disposition.name,
		IsAlert: severity.id >= high().id,
		Message: spec.Message,

		Metadata: ocsfMetadata{
			Version:  ocsfVersion,
			Product:  ocsfProduct{Name: ocsfProductName, VendorName: "The apigw-guardian Authors", Version: version},
			Profiles: []string{"security_control"},
			UID:      eventID(record), EventCode: spec.Reason, LogName: "auditrecords." + v1alpha1.Group,
		},
		Actor:     ocsfActor{User: userOf(spec.User)},
		API:       apiOf(spec),
		Resources: resourcesOf(spec.Object),
		// An admission review does not tell from where the request came; the API server's audit log does.
		SrcEndpoint: ocsfEndpoint{Name: ocsfUnknown},
		Unmapped: ocsfUnmapped{
			Record: record.Name, Outcome: spec.Outcome, Changed: spec.Changed, Replica: spec.Replica, Source: spec.Source, Caller: spec.Caller,
		},
	}
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

// severityOf rates what an administrator should do: at once for a try to mint a credential and for what nobody guarded, some day
// for a denial, and nothing for what was done on purpose.
func severityOf(spec *v1alpha1.AuditRecordSpec) choice {
	switch {
	case spec.Reason == string(policy.TokenMint), spec.Outcome == v1alpha1.Unguarded, spec.Outcome == v1alpha1.Tampered:
		return high()
	case spec.Outcome == v1alpha1.Unlocked, spec.Outcome == v1alpha1.Restored, spec.Outcome == v1alpha1.Allowed,
		spec.Reason == string(policy.NamespaceTerminating):
		return choice{1, "Informational"}
	}
	return choice{3, "Medium"}
}

// verdict is what became of the request, in the words of the schema.
type verdict struct{ status, action, disposition choice }

func verdictOf(outcome v1alpha1.Outcome) verdict {
	success, allowed := choice{1, "Success"}, choice{1, "Allowed"}
	switch outcome {
	case v1alpha1.Denied:
		return verdict{choice{2, "Failure"}, choice{2, "Denied"}, choice{2, "Blocked"}}
	case v1alpha1.WouldDeny:
		return verdict{success, allowed, choice{15, "Detected"}}
	case v1alpha1.Unlocked:
		return verdict{success, allowed, choice{8, "Approved"}}
	case v1alpha1.Restored, v1alpha1.Allowed:
		return verdict{success, allowed, choice{1, "Allowed"}}
	case v1alpha1.Unguarded, v1alpha1.Tampered:
		return verdict{success, allowed, choice{16, "No Action"}}
	}
	unknown := choice{0, "Unknown"}
	return verdict{unknown, unknown, unknown}
}

func userOf(user v1alpha1.User) ocsfUser {
	kind := userType(user)
	result := ocsfUser{Name: cmp.Or(user.Name, ocsfUnknown), UID: user.UID, TypeID: kind.id, Type: kind.name}
	for _, group := range user.Groups {
		result.Groups = append(result.Groups, ocsfGroup{Name: group})
	}
	return result
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

func apiOf(spec *v1alpha1.AuditRecordSpec) ocsfAPI {
	api := ocsfAPI{Operation: cmp.Or(strings.ToLower(string(spec.Operation)), ocsfUnknown), Service: ocsfService{Name: "kube-apiserver"}}
	if spec.LastRequestUID != "" {
		api.Request = &ocsfRequest{UID: spec.LastRequestUID}
	}
	if spec.Outcome == v1alpha1.Denied {
		api.Response = &ocsfResponse{Code: 403, Error: "Forbidden", Message: spec.Message}
	}
	return api
}

func resourcesOf(object v1alpha1.ObjectReference) []ocsfResource {
	if object == (v1alpha1.ObjectReference{}) {
		return nil
	}
	return []ocsfResource{{Type: object.GroupResource().String(), Namespace: object.Namespace, Name: object.Name}}
}

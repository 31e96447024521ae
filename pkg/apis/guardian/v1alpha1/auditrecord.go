// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Outcome is the result of a write to a reserved resource.
//
// +kubebuilder:validation:Enum=Denied;WouldDeny;Unlocked;Exempted;Restored;Authorized;Allowed;Unguarded;Tampered;Drift;Gap;Rotated;Retired
type Outcome string

// Outcomes.
const (
	// Denied: the guard denied the write.
	Denied Outcome = "Denied"
	// WouldDeny: the guard only observes, and would deny the write in mode enforce.
	WouldDeny Outcome = "WouldDeny"
	// Unlocked: an unlock allowed the write.
	Unlocked Outcome = "Unlocked"
	// Exempted: an exemption of the reservation allowed the write.
	Exempted Outcome = "Exempted"
	// Restored: the write restored the manifest of a reserved resource, or a part of it.
	Restored Outcome = "Restored"
	// Authorized: the write created a reserved resource as its manifest says.
	Authorized Outcome = "Authorized"
	// Allowed: the control plane deleted a token Secret whose ServiceAccount is gone.
	Allowed Outcome = "Allowed"
	// Unguarded: the write changed a reserved resource without a decision of the guard. Only imported records have it.
	Unguarded Outcome = "Unguarded"
	// Tampered: the webhook configuration was deleted or edited, and the guard repaired it.
	Tampered Outcome = "Tampered"
	// Drift: the leader found that a reserved resource differs from its manifest, or is absent.
	Drift Outcome = "Drift"
	// Gap: for some time, the guard did not decide about writes to the reserved resources.
	Gap Outcome = "Gap"
	// Rotated: an administrator replaced a credential, and proved that the old one is refused.
	Rotated Outcome = "Rotated"
	// Retired: an administrator revoked the authorization, and proved that its credential is refused.
	Retired Outcome = "Retired"
)

// Outcomes returns all outcomes, in the order of presentation.
func Outcomes() []Outcome {
	return []Outcome{Denied, WouldDeny, Unlocked, Exempted, Restored, Authorized, Allowed, Unguarded, Tampered, Drift, Gap, Rotated, Retired}
}

// IsAllowed reports whether the write was allowed on purpose. The others were denied, or need a review.
func (o Outcome) IsAllowed() bool {
	switch o {
	case Unlocked, Exempted, Restored, Authorized, Allowed, Rotated, Retired:
		return true
	}
	return false
}

// Source is the origin of a record. The zero value is SourceGuard.
//
// +kubebuilder:validation:Enum=Guard;Import
type Source string

// Sources.
const (
	// SourceGuard: the guard made the record when it answered.
	SourceGuard Source = "Guard"
	// SourceImport: audit import made the record from the API server's audit log.
	SourceImport Source = "Import"
)

// Caller says whether the sender of the review proved by a client certificate that it is an API server.
//
// +kubebuilder:validation:Enum=Verified;Unverified
type Caller string

// Callers. An absent value means that the guard asked for no client certificate. An unverified caller may have forged the whole review.
const (
	CallerVerified   Caller = "Verified"
	CallerUnverified Caller = "Unverified"
)

// AuditRecord is the record of a write to a reserved resource that was denied, or allowed on purpose. Equal writes within ten minutes
// share a record, which counts them. It never contains a value of an object.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=denials;denial,categories=guardian
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=`.spec.outcome`
// +kubebuilder:selectablefield:JSONPath=`.spec.resource`
// +kubebuilder:selectablefield:JSONPath=`.spec.user.name`
// +kubebuilder:printcolumn:name="Outcome",type=string,JSONPath=`.spec.outcome`
// +kubebuilder:printcolumn:name="Operation",type=string,JSONPath=`.spec.operation`
// +kubebuilder:printcolumn:name="Resource",type=string,JSONPath=`.spec.resource`
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user.name`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Count",type=integer,JSONPath=`.spec.count`
// +kubebuilder:printcolumn:name="Last seen",type=date,JSONPath=`.spec.lastTime`
// +kubebuilder:printcolumn:name="Caller",type=string,priority=1,JSONPath=`.spec.caller`
// +kubebuilder:printcolumn:name="Changed",type=string,priority=1,JSONPath=`.spec.changed`
// +kubebuilder:printcolumn:name="Acknowledged by",type=string,priority=1,JSONPath=`.status.acknowledgements[*].by`
type AuditRecord struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AuditRecordSpec `json:"spec"`
	// +optional
	Status AuditRecordStatus `json:"status,omitzero"`
}

// AuditRecordSpec says who did what, when, and with which result. Its texts are bounded and printable.
type AuditRecordSpec struct {
	Outcome Outcome `json:"outcome"`
	// Operation is CREATE, UPDATE or DELETE; empty if the request could not be read.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	Operation admissionv1.Operation `json:"operation,omitempty"`
	// Object is the written object. Its parts are empty if the request could not be read.
	// +optional
	Object ObjectReference `json:"object,omitzero"`
	// Resource is Object in one string, such as secrets/kube-system/NAME, for the printer column and the selectable field.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Resource string `json:"resource,omitempty"`
	// Changed are the paths of the fields that the write changed, such as rules[2].verbs; never a value. At most 32.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Changed []string `json:"changed,omitempty"`
	// Reason is the reason in one word, as in the API server's audit annotations.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message is the first line of the message that the user got.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Message string `json:"message,omitempty"`
	// Unlock is the name of the Unlock that allowed the writes.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Unlock string `json:"unlock,omitempty"`
	// Justification is the reason of the Unlock or of the exemption that allowed the writes.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Justification string `json:"justification,omitempty"`
	// User is the user of the request, as authenticated or impersonated.
	User User `json:"user"`
	// FirstTime and LastTime are the times of the answers to the first and the last of the counted writes. They have six digits of a
	// second: clients cannot parse others, and one such record would hide all.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`\.\d{6}(Z|[+-]\d{2}:\d{2})$`
	FirstTime metav1.MicroTime `json:"firstTime"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`\.\d{6}(Z|[+-]\d{2}:\d{2})$`
	LastTime metav1.MicroTime `json:"lastTime"`
	// Count is the number of writes: the sum of Counts.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
	// Counts are the numbers of writes by replica. A replica writes only its own entry, and never lowers it.
	// +optional
	// +listType=map
	// +listMapKey=replica
	Counts []ReplicaCount `json:"counts,omitempty"`
	// LastRequestUID is the uid of the last counted review.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	LastRequestUID string `json:"lastRequestUID,omitempty"`
	// Replica is the replica that counted last.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Replica string `json:"replica,omitempty"`
	// Source is Guard, or Import for a record that was made from the API server's audit log.
	// +optional
	Source Source `json:"source,omitempty"`
	// Caller says whether a client certificate verified the API server that sent the review.
	// +optional
	Caller Caller `json:"caller,omitempty"`
}

// AuditRecordStatus is what users say about a record. The guard counts into the spec only, and so keeps the status.
type AuditRecordStatus struct {
	// Acknowledgements are those of the users who have looked at the record, the newest last. The guard allows each user to add one in
	// their own name, and denies changes and removals.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Acknowledgements []Acknowledgement `json:"acknowledgements,omitempty"`
}

// Acknowledgement is the word of a user who has looked at a record.
type Acknowledgement struct {
	// By is the user who wrote it, as the API server authenticated or impersonated them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	By string `json:"by"`
	// At is when it was written.
	At metav1.Time `json:"at"`
	// Note is what the user found out.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Note string `json:"note"`
	// Count is the record's count that the user has seen. A record that counts more is not acknowledged.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
}

// Acknowledged returns the last acknowledgement of all writes of the record; nil if there is none.
func (r *AuditRecord) Acknowledged() *Acknowledgement {
	for i := range slices.Backward(r.Status.Acknowledgements) {
		if r.Status.Acknowledgements[i].Count == r.Spec.Count {
			return &r.Status.Acknowledgements[i]
		}
	}
	return nil
}

// User is an identity of the API server.
type User struct {
	// Name may be shortened; a shortened name ends in a digest of the whole.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Name string `json:"name,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=320
	UID string `json:"uid,omitempty"`
	// Groups are at most 32.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Groups []string `json:"groups,omitempty"`
	// Extra is what else the authenticator says of the user, such as the session of a shared role; no credential. At most 16 keys.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Extra map[string][]string `json:"extra,omitempty"`
}

// ReplicaCount is the count of one process of the guard.
//
// +kubebuilder:object:generate=false
type ReplicaCount struct {
	// Replica is the name of the Pod or host, with a suffix that is new at every start.
	// +kubebuilder:validation:MaxLength=320
	Replica string `json:"replica"`
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
}

// AuditRecordList is a list of records.
//
// +kubebuilder:object:root=true
type AuditRecordList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AuditRecord `json:"items"`
}

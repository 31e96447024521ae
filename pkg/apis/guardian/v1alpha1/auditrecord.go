// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Outcome is what became of a write to a reserved resource.
//
// +kubebuilder:validation:Enum=Denied;WouldDeny;Unlocked;Exempted;Restored;Authorized;Allowed;Unguarded;Tampered;Drift;Gap;Rotated;Retired
type Outcome string

// Outcomes.
const (
	// Denied: the guard denied the write.
	Denied Outcome = "Denied"
	// WouldDeny: the guard observes only; enforcing, it would have denied the write.
	WouldDeny Outcome = "WouldDeny"
	// Unlocked: an unlock let the write through.
	Unlocked Outcome = "Unlocked"
	// Exempted: an exemption of the reservation let the write through.
	Exempted Outcome = "Exempted"
	// Restored: the write put a reserved resource right, or part of it.
	Restored Outcome = "Restored"
	// Authorized: the write created a reserved resource as its manifest says.
	Authorized Outcome = "Authorized"
	// Allowed: the control plane made a write that it has to make, and that an administrator may want to see.
	Allowed Outcome = "Allowed"
	// Unguarded: the write changed a reserved resource and the guard was not asked. Only an imported record says so.
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

// Outcomes returns all outcomes, in the order in which people should read them.
func Outcomes() []Outcome {
	return []Outcome{Denied, WouldDeny, Unlocked, Exempted, Restored, Authorized, Allowed, Unguarded, Tampered, Drift, Gap, Rotated, Retired}
}

// IsAllowed reports whether the write was allowed as it should be. The others were denied, or are what a reviewer looks for.
func (o Outcome) IsAllowed() bool {
	switch o {
	case Unlocked, Exempted, Restored, Authorized, Allowed, Rotated, Retired:
		return true
	}
	return false
}

// Source is where a record comes from. The zero value is SourceGuard.
//
// +kubebuilder:validation:Enum=Guard;Import
type Source string

// Sources.
const (
	// SourceGuard: the guard wrote the record when it answered.
	SourceGuard Source = "Guard"
	// SourceImport: the record was made from the API server's audit log afterwards.
	SourceImport Source = "Import"
)

// Caller says whether the API server that asked proved by a client certificate that it is one.
//
// +kubebuilder:validation:Enum=Verified;Unverified
type Caller string

// Callers. An absent value says that the guard asked for no client certificate. A caller that is not verified may have made
// up all that the record says.
const (
	CallerVerified   Caller = "Verified"
	CallerUnverified Caller = "Unverified"
)

// AuditRecord is the stored fact of a write to a reserved resource that was denied, or let through on purpose. Equal writes
// of one window of time share a record, and its count is exact. It never holds a value of an object.
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

// AuditRecordSpec is who did what, when, and what came of it. Every text of it is bounded and printable.
type AuditRecordSpec struct {
	Outcome Outcome `json:"outcome"`
	// Operation is CREATE, UPDATE or DELETE; empty where the request could not be read.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	Operation admissionv1.Operation `json:"operation,omitempty"`
	// Object is the written object. Its parts are empty where the request could not be read.
	// +optional
	Object ObjectReference `json:"object,omitzero"`
	// Resource is Object in one string, such as secrets/kube-system/NAME: a printer column and a selectable field can each show
	// one simple field only.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Resource string `json:"resource,omitempty"`
	// Changed are the paths of the fields that the write changed, such as rules[2].verbs; never a value. At most 32.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Changed []string `json:"changed,omitempty"`
	// Reason is why, in one word, as in the API server's audit annotations.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message is what the person was told, in its first line.
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
	// User is who asked, as the API server authenticated or impersonated them.
	User User `json:"user"`
	// FirstTime and LastTime are when the first and the last of the counted writes were answered.
	FirstTime metav1.MicroTime `json:"firstTime"`
	LastTime  metav1.MicroTime `json:"lastTime"`
	// Count is how many writes this record stands for: the sum of Counts.
	// +kubebuilder:validation:Minimum=1
	Count int64 `json:"count"`
	// Counts are the writes that each replica has counted. A replica writes its own entry only, and never lowers it.
	// +optional
	// +listType=map
	// +listMapKey=replica
	Counts []ReplicaCount `json:"counts,omitempty"`
	// LastRequestUID is the uid of the last counted review. The API server's audit log bears the record's name.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	LastRequestUID string `json:"lastRequestUID,omitempty"`
	// Replica is the one that counted last.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Replica string `json:"replica,omitempty"`
	// Source is Guard, or Import for a record that was made from the API server's audit log.
	// +optional
	Source Source `json:"source,omitempty"`
	// Caller says whether the API server that asked was verified by its client certificate.
	// +optional
	Caller Caller `json:"caller,omitempty"`
}

// AuditRecordStatus is what people say of a record. The guard counts into the spec only, so that it keeps the status.
type AuditRecordStatus struct {
	// Acknowledgements are those of the people who have looked at the record, the last one last. The guard lets each user add one in
	// their own name, and lets no user change or remove one.
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
	// Count is the record's count that the user has seen. A record that counts more since then is not acknowledged.
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

// ReplicaCount is what one replica, from one start to its end, has counted.
//
// +kubebuilder:object:generate=false
type ReplicaCount struct {
	// Replica is the name of the Pod or host, and a suffix that is new at every start.
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Unlock allows users to change reserved resources for a limited time. The guard denies an Unlock whose requestedBy is not its creator,
// and every change except approval and closing. The approval is the only part of the status that grants anything.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=guardian
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="By",type=string,JSONPath=`.spec.requestedBy`
// +kubebuilder:printcolumn:name="Resources",type=string,JSONPath=`.spec.resources`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Expires",type=string,format=date-time,JSONPath=`.spec.expiresAt`
// +kubebuilder:printcolumn:name="Users",type=string,priority=1,JSONPath=`.spec.users`
// +kubebuilder:printcolumn:name="Approved by",type=string,priority=1,JSONPath=`.status.approvedBy`
type Unlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec UnlockSpec `json:"spec"`
	// +optional
	Status UnlockStatus `json:"status,omitzero"`
}

// UnlockSpec is what an Unlock allows. It is immutable, except that closed can become true.
//
// +kubebuilder:validation:XValidation:rule="has(self.users) == has(oldSelf.users)",message="users are immutable"
// +kubebuilder:validation:XValidation:rule="has(self.resources) == has(oldSelf.resources)",message="resources are immutable"
// +kubebuilder:validation:XValidation:rule="has(self.operations) == has(oldSelf.operations)",message="operations are immutable"
// +kubebuilder:validation:XValidation:rule="has(self.onEnd) == has(oldSelf.onEnd)",message="onEnd is immutable"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.closed) || !oldSelf.closed || has(self.closed) && self.closed",message="final"
type UnlockSpec struct {
	// Reservation is the name of the reservation, such as apigw-ingress.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	Reservation string `json:"reservation"`
	// Reason says why the change is made. Every record of a write under this Unlock repeats it.
	// +kubebuilder:validation:MinLength=10
	// +kubebuilder:validation:MaxLength=500
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	Reason string `json:"reason"`
	// RequestedBy is the user name of the client that creates the Unlock. The guard denies any other name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	RequestedBy string `json:"requestedBy"`
	// Users are the exact names of the users who may write. The default is RequestedBy.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=320
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	Users []string `json:"users,omitempty"`
	// Resources are reserved resources, such as clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole or
	// secrets/kube-system/apigw-ingress-token-guardian. The default is all of the reservation.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	Resources []string `json:"resources,omitempty"`
	// Operations are what the users may do. The default is UPDATE.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum=CREATE;UPDATE;DELETE
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	Operations []admissionv1.Operation `json:"operations,omitempty"`
	// ExpiresAt is when the Unlock ends. The guard limits the time from its creation.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	ExpiresAt metav1.Time `json:"expiresAt"`
	// OnEnd is what the leader does when the Unlock is over and a resource differs from its manifest because of a write under it: report
	// the difference, or restore the manifest. The default is report.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="immutable: close the unlock and create another one"
	OnEnd OnEnd `json:"onEnd,omitempty"`
	// Closed ends the Unlock early. It cannot become false again.
	// +optional
	Closed bool `json:"closed,omitempty"`
}

// OnEnd is what the leader does at the end of an Unlock. The zero value is OnEndReport.
//
// +kubebuilder:validation:Enum=report;restore
type OnEnd string

// What the leader does.
const (
	// OnEndReport leaves what was changed under the Unlock, and reports it as drift.
	OnEndReport OnEnd = "report"
	// OnEndRestore restores the manifest.
	OnEndRestore OnEnd = "restore"
)

// Subjects returns the names of the users who may write.
func (s *UnlockSpec) Subjects() []string {
	if len(s.Users) == 0 {
		return []string{s.RequestedBy}
	}
	return s.Users
}

// Allowed returns the operations that the users may do.
func (s *UnlockSpec) Allowed() []admissionv1.Operation {
	if len(s.Operations) == 0 {
		return []admissionv1.Operation{admissionv1.Update}
	}
	return s.Operations
}

// UnlockStatus is written by the guard, except for ApprovedBy.
type UnlockStatus struct {
	// ApprovedBy is the user name of the client that approved the Unlock. The guard denies any other name, and that of RequestedBy.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	ApprovedBy string `json:"approvedBy,omitempty"`
	// State is for people. No decision reads it.
	// +optional
	State UnlockState `json:"state,omitempty"`
	// FirstUsed is when the Unlock first allowed a write; nil before that.
	// +optional
	FirstUsed *metav1.Time `json:"firstUsed,omitempty"`
	// Replicas are the states in which the replicas of the guard have seen the Unlock, by the names of the replicas.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Replicas map[string]UnlockState `json:"replicas,omitempty"`
}

// UnlockState is a stage of an Unlock.
//
// +kubebuilder:validation:Enum=Pending;Open;Closed;Expired;Invalid
type UnlockState string

// States of an Unlock.
const (
	// UnlockPending: the Unlock waits for the approval by a second person.
	UnlockPending UnlockState = "Pending"
	// UnlockOpen: writes that the Unlock covers are allowed.
	UnlockOpen UnlockState = "Open"
	// UnlockClosed: the Unlock was closed before its end.
	UnlockClosed UnlockState = "Closed"
	// UnlockExpired: the Unlock has reached its end.
	UnlockExpired UnlockState = "Expired"
	// UnlockInvalid: the Unlock allows nothing, because the guard would not have let it be created.
	UnlockInvalid UnlockState = "Invalid"
)

// IsOver reports whether an Unlock in this state allows nothing, and never will.
func (s UnlockState) IsOver() bool { return s != UnlockOpen && s != UnlockPending }

// UnlockList is a list of unlocks.
//
// +kubebuilder:object:root=true
type UnlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Unlock `json:"items"`
}

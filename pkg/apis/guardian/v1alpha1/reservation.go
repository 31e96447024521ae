// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Reservation shows one reservation as the guard has loaded it, and its state. The leader writes it. Nothing reads it: to change what is
// reserved, change the chart's value reservations.
//
// +kubebuilder:object:generate=false
// +kubebuilder:resource:scope=Cluster,categories=guardian
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Authorized",type=string,JSONPath=`.status.conditions[?(@.type=="Authorized")].status`
// +kubebuilder:printcolumn:name="Protected",type=string,JSONPath=`.status.conditions[?(@.type=="Protected")].status`
// +kubebuilder:printcolumn:name="In sync",type=string,JSONPath=`.status.conditions[?(@.type=="InSync")].status`
// +kubebuilder:printcolumn:name="Denials 24h",type=integer,JSONPath=`.status.denials24h`
// +kubebuilder:printcolumn:name="Checked",type=date,JSONPath=`.status.checked`
// +kubebuilder:printcolumn:name="Network",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="PrivateNetworkReady")].status`
// +kubebuilder:printcolumn:name="Retired",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Retired")].status`
// +kubebuilder:printcolumn:name="Last denial",type=date,priority=1,JSONPath=`.status.lastDenial`
// +kubebuilder:printcolumn:name="Unlocks",type=string,priority=1,JSONPath=`.status.unlocks`
type Reservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ReservationSpec `json:"spec"`
	// +optional
	Status ReservationStatus `json:"status,omitzero"`
}

// ReservationSpec is that of the file.
//
// +kubebuilder:object:generate=false
type ReservationSpec struct {
	// Owner is the owner that messages name, such as "API Gateway".
	Owner string `json:"owner"`
	// Resources are the reserved resources, in the order in which they are applied.
	// +listType=atomic
	Resources []ReservationResource `json:"resources"`
	// Exemptions are identities that may write to the resources.
	// +optional
	// +listType=atomic
	Exemptions []runtime.RawExtension `json:"exemptions,omitempty"`
}

// ReservationResource is one reserved resource.
//
// +kubebuilder:object:generate=false
type ReservationResource struct {
	// Resource is the plural name of the kind.
	Resource string `json:"resource"`
	// NamePrefix reserves every name that starts with it; empty if only the manifest's name is reserved.
	// +optional
	NamePrefix string `json:"namePrefix,omitempty"`
	// Manifest is the reserved manifest.
	// +kubebuilder:pruning:PreserveUnknownFields
	Manifest runtime.RawExtension `json:"manifest"`
}

// ReservationStatus is what the leader knows.
//
// +kubebuilder:object:generate=false
type ReservationStatus struct {
	// Conditions are Authorized, Protected, InSync, PrivateNetworkReady, Retired and TokenCleanup.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Checked is when the leader last wrote the status. If it is older than two minutes, no leader runs.
	// +optional
	Checked *metav1.Time `json:"checked,omitempty"`
	// Denials24h counts the denials of the last 24 hours, to within the ten minutes of a record; nil if unknown.
	// +optional
	Denials24h *int64 `json:"denials24h,omitempty"`
	// LastDenial is the time of the last denial; nil if there is none.
	// +optional
	LastDenial *metav1.Time `json:"lastDenial,omitempty"`
	// Unlocks are the names of the unlocks that are open.
	// +optional
	// +listType=atomic
	Unlocks []string `json:"unlocks,omitempty"`
}

// Conditions of a Reservation.
const (
	// ConditionAuthorized: every resource exists, and the token Secret is usable.
	ConditionAuthorized = "Authorized"
	// ConditionProtected: the guard denied the last forbidden write to each kind of resource, a server dry-run.
	ConditionProtected = "Protected"
	// ConditionInSync: every resource is as its manifest says.
	ConditionInSync = "InSync"
	// ConditionPrivateNetworkReady: TKE shows private network access to the API server.
	ConditionPrivateNetworkReady = "PrivateNetworkReady"
	// ConditionRetired: the authorization was retired.
	ConditionRetired = "Retired"
	// ConditionTokenCleanup: kube-controller-manager has disabled the token as unused, or does so within 30 days.
	ConditionTokenCleanup = "TokenCleanup"
)

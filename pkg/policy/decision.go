// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy decides one question: may this write to a reserved resource happen?
//
// A decision is a pure function of the request, the reserved set and the facts about the cluster that Case.Lookups asks for. It judges the
// result of a write, not only who writes: what leaves a reserved resource as its manifest says is harmless from anyone; any
// other write is not, but for a known system writer that makes exactly its own change.
package policy

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Reason is why a decision is what it is; a closed list, fit for a metric's label.
type Reason string

// Reasons of a denial.
const (
	// Unreadable: the request cannot be judged, as it is broken, or of a kind, operation or subresource that is not known.
	Unreadable Reason = "Unreadable"
	// TooLarge: the review is larger than any honest one.
	TooLarge Reason = "TooLarge"
	// Overloaded: the guard had no room in memory for the review.
	Overloaded Reason = "Overloaded"
	// ReservedUpdate: the update changes a reserved resource away from its manifest.
	ReservedUpdate Reason = "ReservedUpdate"
	// ReservedDelete: the write deletes a reserved resource, or completes its deletion.
	ReservedDelete Reason = "ReservedDelete"
	// ReservedCreate: the name is reserved, and the object is not its manifest.
	ReservedCreate Reason = "ReservedCreate"
	// TokenMint: the Secret would hold one more credential of a reserved ServiceAccount.
	TokenMint Reason = "TokenMint"
)

// Reasons of an allowed write.
const (
	// NotReserved: the write does not concern a reserved resource.
	NotReserved Reason = "NotReserved"
	// NoChange: the update changes nothing in meaning.
	NoChange Reason = "NoChange"
	// SystemWrite: the control plane keeps a reserved resource going.
	SystemWrite Reason = "SystemWrite"
	// SystemDelete: kube-controller-manager deletes a token Secret whose ServiceAccount is gone.
	SystemDelete Reason = "SystemDelete"
	// Restoration: every change goes towards the manifest.
	Restoration Reason = "Restoration"
	// Unconfirmed: the write needs no denial, but nothing shows that its object is the live one. It leaves no record: the API
	// server refuses it, or no API server has sent it.
	Unconfirmed Reason = "Unconfirmed"
	// NamespaceTerminating: the whole namespace is going already; a denial would only leave it stuck.
	NamespaceTerminating Reason = "NamespaceTerminating"
)

// RecordedReasons returns the reasons that a record may bear, in the order in which people should read them. The others allow a
// write that needs no record.
func RecordedReasons() []Reason {
	return []Reason{
		ReservedUpdate, ReservedDelete, ReservedCreate, TokenMint, Unreadable, TooLarge, Overloaded,
		Restoration, SystemDelete, NamespaceTerminating,
	}
}

// Mode says what becomes of a write that is to be denied.
type Mode string

// Modes. The zero Mode enforces.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// Decision is the answer to one request. Its zero value denies.
type Decision struct {
	Allowed bool
	Reason  Reason
	// Outcome is what the record of the decision says; empty for a decision that needs no record.
	Outcome v1alpha1.Outcome
	// Resource is the entry that the write concerns; nil where it concerns none, or none could be made out.
	Resource *reserved.Resource
	// Object is the written object, with its name shortened; zero where Resource is nil.
	Object v1alpha1.ObjectReference
	// Changed are the paths of the fields that the write changes; never a value.
	Changed []string
}

// Deny is the decision about a review that could not be read: Reason is Unreadable, TooLarge or Overloaded.
func Deny(reason Reason) Decision {
	return Decision{Reason: reason, Outcome: v1alpha1.Denied}
}

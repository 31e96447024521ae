// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy decides whether a write to a reserved resource is allowed.
//
// A decision is a pure function of the request, the reserved set and the answers to Case.Lookups. It judges the result of a
// write, not only its user. A write whose changes match the reserved manifest is allowed for every user. Any other write is
// allowed only for a component of the control plane that makes its own change.
package policy

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Reason is the reason of a decision. The list is closed, so that a metric can use it as a label.
type Reason string

// Reasons of a denial.
const (
	// Unreadable: the request is malformed, or its kind, operation or subresource is unknown.
	Unreadable Reason = "Unreadable"
	// TooLarge: the review is larger than an API server sends.
	TooLarge Reason = "TooLarge"
	// Overloaded: the review exceeded the guard's memory budget.
	Overloaded Reason = "Overloaded"
	// ReservedUpdate: the update makes a reserved resource differ from its manifest.
	ReservedUpdate Reason = "ReservedUpdate"
	// ReservedDelete: the write deletes a reserved resource, or completes its deletion.
	ReservedDelete Reason = "ReservedDelete"
	// ReservedCreate: the name is reserved, and the object differs from its manifest.
	ReservedCreate Reason = "ReservedCreate"
	// TokenMint: the Secret would hold an additional credential of a reserved ServiceAccount.
	TokenMint Reason = "TokenMint"
	// SideDoor: the write to another object uses a reserved ServiceAccount or role, or gives more to it.
	SideDoor Reason = "SideDoor"
	// UnlockRejected: the write would forge, widen, prolong, reopen or delete an Unlock, or approve the user's own.
	UnlockRejected Reason = "UnlockRejected"
)

// Reasons of an allowed write.
const (
	// NotReserved: the write does not concern a reserved resource.
	NotReserved Reason = "NotReserved"
	// NoChange: the update changes nothing in meaning.
	NoChange Reason = "NoChange"
	// SystemWrite: the control plane keeps a reserved resource working.
	SystemWrite Reason = "SystemWrite"
	// SystemDelete: kube-controller-manager deletes a token Secret whose ServiceAccount no longer exists.
	SystemDelete Reason = "SystemDelete"
	// Restoration: every changed field matches the manifest again.
	Restoration Reason = "Restoration"
	// Unconfirmed: the write is allowed, but its object is not the live one. It is not recorded: the API server refuses it, or
	// the caller is not an API server.
	Unconfirmed Reason = "Unconfirmed"
	// Unlocked: an open Unlock covers the write.
	Unlocked Reason = "Unlocked"
	// Exemption: an exemption of the reservation covers the write.
	Exemption Reason = "Exemption"
	// UnlockAccepted: the write to an Unlock follows the rules of unlocks.
	UnlockAccepted Reason = "UnlockAccepted"
	// NamespaceTerminating: the namespace is terminating, and a denial would block its deletion for ever.
	NamespaceTerminating Reason = "NamespaceTerminating"
)

// RecordedReasons returns the reasons that a record may have, in the order of presentation. Writes with other reasons are not
// recorded.
func RecordedReasons() []Reason {
	return []Reason{
		ReservedUpdate, ReservedDelete, ReservedCreate, TokenMint, SideDoor, UnlockRejected, Unreadable, TooLarge, Overloaded,
		Unlocked, Exemption, Restoration, SystemDelete, NamespaceTerminating,
	}
}

// Mode decides whether a forbidden write is denied.
type Mode string

// Modes. The zero Mode is Enforce; Observe allows forbidden writes and records them as WouldDeny.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// Decision is the answer to one request. Its zero value denies.
type Decision struct {
	Allowed bool
	Reason  Reason
	// Outcome is the outcome of the record; empty if the decision needs no record.
	Outcome v1alpha1.Outcome
	// Resource is the reserved resource that the write concerns; nil if there is none, or if the request is unreadable.
	Resource *reserved.Resource
	// Object is the written object, with its name shortened; zero if it is neither a reserved resource, a side door nor an Unlock.
	Object v1alpha1.ObjectReference
	// Via says how the write uses Resource as a side door, such as "Pod "x" runs as"; empty for a write to Resource itself.
	Via string
	// Changed has the paths of the fields that the write changes, never a value.
	Changed []string
	// Unlock is the name of the Unlock that allows the write, and Justification its reason, or that of the exemption.
	Unlock, Justification string
	// Problem says what is wrong with a write to an Unlock.
	Problem string
}

// Deny returns the decision about a review that was not read. reason is Unreadable, TooLarge or Overloaded.
func Deny(reason Reason) Decision {
	return Decision{Reason: reason, Outcome: v1alpha1.Denied}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

// Reasons of a record whose outcome is Tampered. No decision has them.
const (
	// RegistrationChanged: the webhook configuration was edited.
	RegistrationChanged = "RegistrationChanged"
	// RegistrationDeleted: the webhook configuration was deleted.
	RegistrationDeleted = "RegistrationDeleted"
	// LeaseHeld: the leader-election lease named a term that no replica asks for.
	LeaseHeld = "LeaseHeld"
)

// TamperedReasons returns them, in the order in which people should read them.
func TamperedReasons() []string { return []string{RegistrationDeleted, RegistrationChanged, LeaseHeld} }

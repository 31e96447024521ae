// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

// Reasons of a record whose outcome is Retired or Rotated. No decision has them.
const (
	// Retirement: `apigw-guardian retire` has finished.
	Retirement = "Retirement"
	// Rotation: `apigw-guardian rotate` has finished.
	Rotation = "Rotation"
)

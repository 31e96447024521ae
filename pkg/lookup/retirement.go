// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RetirementsName is the name of the ConfigMap in which `apigw-guardian retire` marks the retired reservations, one key each.
const RetirementsName = "apigw-guardian-retirements"

// RetirementState is how far a retirement is.
type RetirementState string

// States of a retirement.
const (
	// Retiring: some resources may exist, and their token may be accepted.
	Retiring RetirementState = "Retiring"
	// Retired: the resources were deleted, and the API server has refused their tokens.
	Retired RetirementState = "Retired"
)

// Retirement says that a reservation is retired. Until the mark is removed, the guard denies that its resources are created.
type Retirement struct {
	State RetirementState `json:"state"`
	// Since is when the state began.
	Since metav1.Time `json:"since"`
	// By is the user name of the client.
	By string `json:"by"`
	// Unlock is the name of the Unlock of the deletions; empty if no guard was installed.
	Unlock string `json:"unlock,omitempty"`
	// Kept are the reserved resources that were left on purpose, in the form of reserved.Resource.String.
	Kept []string `json:"kept,omitempty"`
}

// Retirement returns the mark of a reservation; nil if there is none.
func (r Reader) Retirement(ctx context.Context, reservation string) (*Retirement, error) {
	retirement := &Retirement{}
	switch found, err := r.readNote(ctx, RetirementsName, reservation, retirement); {
	case err != nil:
		return nil, fmt.Errorf("look up whether %q is retired: %w", reservation, err)
	case !found:
		return nil, nil
	}
	return retirement, nil
}

func (r *Retirement) isOf(string) bool { return r.State == Retiring || r.State == Retired }

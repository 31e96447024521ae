// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

// RetireResult is what one Retire did.
type RetireResult struct {
	Retired lookup.Retirement `json:"retired"`
	Steps   []Step            `json:"steps"`
}

// Retire deletes the resources of a reservation, proves that the API server refuses their tokens, and records it. Until Authorize
// runs with Again, the guard denies that the resources are created. After an interruption at any step, another Retire finishes.
//
// The Result holds the steps with an error too. Errors: ErrApproval (nothing was written but the Unlock), ErrTokenAccepted, those of
// Unlocks and of the API server.
func (a *Authorizer) Retire(ctx context.Context, options Revocation) (RetireResult, error) {
	r, err := a.newRun(ctx, options)
	if err != nil {
		return RetireResult{}, err
	}
	retired, err := r.retire(ctx)
	result := RetireResult{Steps: r.steps}
	if retired != nil {
		result.Retired = *retired
	}
	return result, err
}

func (r *run) retire(ctx context.Context) (*lookup.Retirement, error) {
	targets, err := r.targets(ctx, r.Reservation)
	if err != nil {
		return nil, err
	}
	retired, err := r.cluster.Lookups().Retirement(ctx, r.Reservation.Name)
	if err != nil {
		return nil, err
	}
	w, err := r.readWitness(ctx, retiringSecret, r.Reservation.Name)
	if err != nil {
		return nil, err
	}
	isGone := !slices.ContainsFunc(targets, func(t target) bool { return t.live != nil && !r.keeps(t) })
	if retired == nil || retired.State != lookup.Retired || !isGone {
		return r.revoke(ctx, w, isGone)
	}
	for _, t := range targets {
		outcome := "absent"
		if t.live != nil {
			outcome = "kept"
		}
		r.report(t.String(), outcome)
	}
	if w == nil {
		return retired, nil
	}
	// An interrupted run has left this to do after the mark.
	if err := r.proveRefused(ctx, w.Tokens); err != nil {
		return retired, err
	}
	return retired, r.finish(ctx, retiringSecret, w, r.retirement(w))
}

func (r *run) keeps(t target) bool { return r.KeepClusterRole && t.resource.Kind == "ClusterRole" }

// revoke deletes the resources and proves that their tokens are refused.
func (r *run) revoke(ctx context.Context, w *witness, isGone bool) (*lookup.Retirement, error) {
	if !isGone {
		if err := r.open(ctx, admissionv1.Delete); err != nil {
			return nil, err
		}
	}
	retired := &lookup.Retirement{State: lookup.Retiring, Since: metav1.Now(), By: r.user, Unlock: r.unlock}
	if err := r.mark(ctx, r.Reservation.Name, retired); err != nil {
		return nil, err
	}
	r.report("reservation "+r.Reservation.Name, "marked as being retired")
	targets, err := r.targets(ctx, r.Reservation) // from now on, the guard lets nobody create another one
	if err != nil {
		return nil, err
	}
	if w == nil {
		w = r.newWitness()
	}
	if err := r.keep(ctx, retiringSecret, w, targets); err != nil {
		return nil, err
	}
	for _, t := range targets {
		if r.keeps(t) && t.live != nil {
			retired.Kept = append(retired.Kept, t.resource.String())
			r.report(t.String(), "kept")
			continue
		}
		if err := r.remove(ctx, t); err != nil {
			return nil, err
		}
	}
	if err := r.proveRefused(ctx, w.Tokens); err != nil {
		return nil, err
	}
	retired.State, retired.Since = lookup.Retired, metav1.Now()
	if err := r.mark(ctx, r.Reservation.Name, retired); err != nil {
		return nil, err
	}
	r.report("reservation "+r.Reservation.Name, "marked as retired")
	return retired, r.finish(ctx, retiringSecret, w, r.retirement(w))
}

func (r *run) retirement(w *witness) audit.Event {
	return audit.Event{
		Outcome: v1alpha1.Retired, Operation: admissionv1.Delete, Reason: audit.Retirement,
		Message: fmt.Sprintf("The authorization of %s was retired. The API server refuses its %d tokens.", r.Reservation.Owner, len(w.Tokens)),
	}
}

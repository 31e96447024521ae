// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrRetired says that a reservation is retired, or being retired.
var ErrRetired = errors.New("its authorization is retired")

// retired returns the retired reservations, or ErrRetired unless they are to be authorized again.
func (a *Authorizer) retired(ctx context.Context, options Options) ([]*reserved.Reservation, error) {
	left, refusals, err := a.Unretired(ctx)
	switch {
	case err != nil || len(refusals) == 0:
		return nil, err
	case !options.Again:
		return nil, refusals[0]
	}
	return slices.DeleteFunc(slices.Clone(a.cluster.Set.Reservations()), func(r *reserved.Reservation) bool {
		return slices.Contains(left, r)
	}), nil
}

// Unretired returns the reservations that are neither retired nor being retired, and an ErrRetired for each other one.
func (a *Authorizer) Unretired(ctx context.Context) (left []*reserved.Reservation, retired []error, err error) {
	for _, reservation := range a.cluster.Set.Reservations() {
		retirement, err := a.cluster.Lookups().Retirement(ctx, reservation.Name)
		switch {
		// The preflight names all permissions that the caller lacks, and the guard reads the mark itself.
		case err != nil && !apierrors.IsForbidden(err):
			return nil, nil, err
		case retirement != nil:
			retired = append(retired, refuseRetired(reservation.Owner, retirement))
		default:
			left = append(left, reservation)
		}
	}
	return left, retired, nil
}

func refuseRetired(owner string, r *lookup.Retirement) error {
	since := r.Since.UTC().Format(time.RFC3339)
	if r.State == lookup.Retiring {
		return fmt.Errorf("%s: %w: %s began that at %s, and it has not finished: finish it with %s retire, or take it back with "+
			"%s authorize --again", owner, ErrRetired, r.By, since, guardian.Name, guardian.Name)
	}
	return fmt.Errorf("%s: %w since %s, by %s: to authorize it again: %s authorize --again", owner, ErrRetired, since, r.By, guardian.Name)
}

// mark writes that a reservation is retired, or being retired.
func (a *Authorizer) mark(ctx context.Context, reservation string, retirement *lookup.Retirement) error {
	return a.inNamespace(ctx, func() error {
		_, err := a.notes(lookup.RetirementsName).Put(ctx, "", map[string]*string{reservation: client.Encoded(retirement)}, nil)
		return err
	})
}

// inNamespace writes an object in the guard's namespace, and creates the namespace if that is absent.
func (a *Authorizer) inNamespace(ctx context.Context, apply func() error) error {
	err := apply()
	if !apierrors.IsNotFound(err) {
		return err
	}
	if err := a.createNamespace(ctx); err != nil {
		return err
	}
	return apply()
}

// unmark removes the mark, and what an interrupted retirement has left.
func (a *Authorizer) unmark(ctx context.Context, reservation string) error {
	_, err := a.notes(lookup.RetirementsName).Write(ctx, "", map[string]*string{reservation: nil})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the mark of a retirement: %w", err)
	}
	return a.removeWitness(ctx, retiringSecret)
}

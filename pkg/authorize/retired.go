// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrRetired says that a reservation is retired, or being retired.
var ErrRetired = errors.New("its authorization is retired")

// retired returns the names of the retired reservations, or ErrRetired unless they are to be authorized again.
func (a *Authorizer) retired(ctx context.Context, options Options) ([]string, error) {
	var names []string
	for _, reservation := range a.cluster.Set.Reservations() {
		retirement, err := a.lookups().Retirement(ctx, reservation.Name)
		switch {
		case apierrors.IsForbidden(err): // the preflight names all permissions that the caller lacks, and the guard reads the mark itself
		case err != nil:
			return nil, err
		case retirement == nil:
		case options.Again:
			names = append(names, reservation.Name)
		default:
			return nil, refuseRetired(reservation.Owner, retirement)
		}
	}
	return names, nil
}

// Unretired returns the reservations that are neither retired nor being retired, and an ErrRetired for each other one.
func (a *Authorizer) Unretired(ctx context.Context) (left []*reserved.Reservation, retired []error, err error) {
	for _, reservation := range a.cluster.Set.Reservations() {
		retirement, err := a.lookups().Retirement(ctx, reservation.Name)
		switch {
		case err != nil && !apierrors.IsForbidden(err): // see above
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
	value, err := json.Marshal(retirement)
	if err != nil {
		return fmt.Errorf("encode the mark of a retirement: %w", err)
	}
	err = a.patchMarks(ctx, map[string]any{reservation: string(value)})
	if apierrors.IsNotFound(err) {
		err = a.inNamespace(ctx, func() error {
			marks := applycorev1.ConfigMap(lookup.RetirementsName, a.cluster.Namespace).WithData(map[string]string{reservation: string(value)})
			options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
			_, err := a.cluster.Client.CoreV1().ConfigMaps(a.cluster.Namespace).Apply(ctx, marks, options)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write configmap %s/%s: %w", a.cluster.Namespace, lookup.RetirementsName, err)
	}
	return nil
}

// inNamespace creates an object in the guard's namespace by a server-side apply, and the namespace before if it is absent. RBAC can limit
// the apply to a name, but not a POST, and a Pod of the guard need not create its namespace.
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
	err := a.patchMarks(ctx, map[string]any{reservation: nil})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove the mark of a retirement from configmap %s/%s: %w", a.cluster.Namespace, lookup.RetirementsName, err)
	}
	return a.removeWitness(ctx, retiringSecret)
}

func (a *Authorizer) patchMarks(ctx context.Context, marks map[string]any) error {
	patch, err := json.Marshal(map[string]any{"data": marks})
	if err != nil {
		return err
	}
	_, err = a.cluster.Client.CoreV1().ConfigMaps(a.cluster.Namespace).Patch(
		ctx, lookup.RetirementsName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: guardian.FieldManager})
	return err
}

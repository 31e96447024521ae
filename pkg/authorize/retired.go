// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
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
		if err := a.createNamespace(ctx); err != nil {
			return err
		}
		marks := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: lookup.RetirementsName}, Data: map[string]string{
			reservation: string(value),
		}}
		_, err = a.cluster.Client.CoreV1().ConfigMaps(a.cluster.Namespace).Create(
			ctx, marks, metav1.CreateOptions{FieldManager: guardian.FieldManager})
	}
	if err != nil {
		return fmt.Errorf("write configmap %s/%s: %w", a.cluster.Namespace, lookup.RetirementsName, err)
	}
	return nil
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

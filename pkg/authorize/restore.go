// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrDeletedCredential says that a token Secret was deleted and its ServiceAccount was not: a new Secret would make its token valid again.
var ErrDeletedCredential = errors.New("its token was deleted, and a new Secret would make that token valid again: replace the credential " +
	"for good: " + guardian.Name + " rotate")

// restoreWait is how long Restore waits for kube-controller-manager.
const restoreWait = 10 * time.Second

// Restore makes one object equal its manifest, as Authorize with Repair does. It runs no preflight and proves no token.
//
// Errors: ErrRetired or ErrDeletedCredential (nothing was written), ErrDiffers, or one of the API server.
func (a *Authorizer) Restore(ctx context.Context, resource *reserved.Resource) (Line, error) {
	retirement, err := a.cluster.Lookups().Retirement(ctx, resource.Reservation)
	switch {
	case err != nil:
		return Line{}, err
	case retirement != nil:
		return Line{}, refuseRetired(resource.Owner, retirement)
	}
	o, err := a.cluster.Compare(ctx, resource)
	if err != nil {
		return Line{}, err
	}
	deleted, err := a.deletedCredential(ctx, o)
	switch {
	case err != nil:
		return Line{}, err
	case deleted != "":
		return Line{}, fmt.Errorf("create %s: %w", o, ErrDeletedCredential)
	}
	return a.put(ctx, resource, Options{Repair: true, Wait: restoreWait})
}

// IsApplied reports whether this program has applied the object at some time: it owns fields of it.
func IsApplied(o live.Object) bool {
	return o.Live != nil && hasFields(o.Resource) && isOurs(o)
}

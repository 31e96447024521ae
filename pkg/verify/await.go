// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrUnprotected says that the guard did not deny a forbidden write.
var ErrUnprotected = errors.New("authorized, but not protected")

// awaitInterval is the pause between two rounds. A guard registers within a second of its start, or when a killed guard's lease ends.
const awaitInterval = 500 * time.Millisecond

// Await waits until the guard has denied a forbidden write to each resource with a manifest. After the time limit, the error
// wraps ErrUnprotected and says which write was not denied.
func (v Verifier) Await(ctx context.Context, limit time.Duration) error {
	// The limit does not cut off an attack: that would say nothing about the guard.
	over := time.After(limit)
	for {
		open := v.firstOpen(ctx)
		if open == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the guard: %w", context.Cause(ctx))
		case <-over:
			return fmt.Errorf("%w after %s: %s", ErrUnprotected, limit, open)
		case <-time.After(awaitInterval):
		}
	}
}

// firstOpen says why the first unprotected resource is open; "" if there is none.
func (v Verifier) firstOpen(ctx context.Context) string {
	for _, resource := range v.cluster.Set.Resources() {
		if !resource.HasManifest() {
			continue
		}
		if reason := v.Unprotected(ctx, resource); reason != "" {
			return reason
		}
	}
	return ""
}

// Unprotected tries one forbidden write to the resource, and says why it is not denied; "" if it is, or if the scope leaves it out.
func (v Verifier) Unprotected(ctx context.Context, resource *reserved.Resource) string {
	t, err := v.aim(ctx, resource)
	if err != nil && !v.leavesOut(err) {
		return fmt.Sprintf("cannot check whether %s is protected: %v", resource, err)
	}
	first, found := firstAttack(t)
	if !found {
		return fmt.Sprintf("cannot check whether %s is protected: it is absent", resource)
	}
	got, err := v.try(ctx, first, t)
	if got != denied && !v.leavesOut(err) {
		return fmt.Sprintf("%s is not protected: dry-run of a forbidden %s: %s", resource, first.write, got)
	}
	return ""
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrUnprotected says that the guard did not deny a forbidden write.
var ErrUnprotected = errors.New("authorized, but not protected")

// protectionPoll is the pause between two looks for the guard, which registers itself within a second of its start, or once
// the lease of a guard that was killed has run out.
const protectionPoll = 500 * time.Millisecond

// AwaitProtection waits until the guard has denied a forbidden write to each resource with a manifest, tried as server
// dry-runs, which store nothing. A write that RBAC does not let the caller try is not waited for. The error wraps
// ErrUnprotected and says what was not denied, if that lasts for all the patience.
func (a *Authorizer) AwaitProtection(ctx context.Context, patience time.Duration) error {
	// The time bounds the pauses and not the tries: one that was cut off would say nothing of the guard.
	over := time.After(patience)
	for {
		open := a.firstOpen(ctx)
		if open == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the guard: %w", context.Cause(ctx))
		case <-over:
			return fmt.Errorf("%w after %s: %s", ErrUnprotected, patience, open)
		case <-time.After(protectionPoll):
		}
	}
}

// firstOpen says of the first resource that is open why it is; "" where none is.
func (a *Authorizer) firstOpen(ctx context.Context) string {
	v := verifier{a, PermittedWrites}
	for _, entry := range a.set.Resources() {
		if !entry.HasManifest() {
			continue
		}
		if reason := v.openTo(ctx, entry); reason != "" {
			return reason
		}
	}
	return ""
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrDiffers says that a live resource is not as its manifest says, and was not, or could not be, put right.
var ErrDiffers = errors.New("it differs from its manifest")

// Outcome is what became of one reserved resource.
type Outcome string

// Outcomes.
const (
	// Created: it was absent.
	Created Outcome = "created"
	// Unchanged: it was equal and ours already; nothing was written. A resource whose manifest has no field but its name
	// leaves nothing to own, and is Unchanged when it stands there.
	Unchanged Outcome = "unchanged"
	// Adopted: it was equal and is ours now; or an older token Secret is used as it stands.
	Adopted Outcome = "adopted"
	// Repaired: it differed, and is as the manifest says now.
	Repaired Outcome = "repaired"
)

// Line tells of one resource.
type Line struct {
	// Resource is the reserved entry, as reserved.Resource writes itself.
	Resource string  `json:"resource"`
	Outcome  Outcome `json:"outcome"`
	// Name is the object that does the entry's work: the manifest's own name, or the one of an older token Secret.
	Name string `json:"name"`
	// Paths are the fields that were put right; empty unless Repaired.
	Paths []string `json:"paths,omitempty"`
	// Unproved says that the caller may not read the token Secret, so that its token is not tried out.
	Unproved bool `json:"unproved,omitempty"`
}

// String writes the line for people:
//
//	clusterroles.rbac.authorization.k8s.io/some-role repaired (rules[2].verbs)
//	secrets/some-namespace/some-token-* adopted (some-token-x7k2p)
func (l Line) String() string {
	text := l.Resource + " " + string(l.Outcome)
	switch {
	case len(l.Paths) > 0:
		return text + " (" + strings.Join(l.Paths, ", ") + ")"
	case l.Unproved:
		return text + " (" + l.Name + "; not proved, as you may not read it)"
	case strings.HasSuffix(l.Resource, "*"):
		return text + " (" + l.Name + ")"
	}
	return text
}

// Result is what a run of Authorize came to.
type Result struct {
	Checks
	// Lines are in the order in which the resources were applied.
	Lines []Line `json:"lines"`
	// Proofs holds one for each credential that was tried out.
	Proofs []Proof `json:"proofs"`
}

// Authorize runs the preflight, applies each reserved manifest by server-side apply in the order of the files, waits for
// the token Secrets to be filled, and proves each token. It can be repeated at any time: what is as it should be is not
// written again.
//
// The Result is valid with an error too, as far as the run came. Errors: *PreflightError (nothing was written), ErrDiffers,
// ErrTokenNotFilled, ErrTokenUnproved, or one of the API server.
func (a *Authorizer) Authorize(ctx context.Context, options Options) (Result, error) {
	result := Result{Checks: a.Preflight(ctx, options)}
	options.checked(result.Checks)
	if failed := result.Failed(); len(failed) > 0 {
		return result, &PreflightError{Failed: failed}
	}
	credentials, err := a.applyAll(ctx, options, &result)
	if err != nil {
		return result, err
	}
	for _, c := range credentials {
		proof, err := a.prove(ctx, c, options.wait())
		if err != nil {
			return result, err
		}
		result.Proofs = append(result.Proofs, proof)
	}
	return result, nil
}

// applyAll applies every manifest and returns the credentials to prove.
func (a *Authorizer) applyAll(ctx context.Context, options Options, result *Result) ([]credential, error) {
	var credentials []credential
	for _, reservation := range a.set.Reservations() {
		for _, entry := range reservation.Resources {
			if !entry.HasManifest() {
				continue
			}
			line, err := a.put(ctx, entry, options)
			if err != nil {
				return nil, err
			}
			result.Lines = append(result.Lines, line)
			options.report(line)
			if !entry.IsTokenSecret() || line.Unproved {
				continue
			}
			if granted := grants(reservation, entry); len(granted) > 0 {
				credentials = append(credentials, credential{entry: entry, secret: line.Name, grants: granted})
			}
		}
	}
	return credentials, nil
}

// put brings one resource to where its manifest says. Between the look and the write somebody else may write: then it
// looks again.
func (a *Authorizer) put(ctx context.Context, entry *reserved.Resource, options Options) (Line, error) {
	var line Line
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		f, err := a.look(ctx, entry)
		if err != nil {
			return err
		}
		if err := a.leaveInUse(ctx, f); err != nil {
			return err
		}
		line = Line{Resource: entry.String(), Name: f.inUse(), Unproved: f.live == nil && f.older.isUnread()}
		line.Outcome, err = a.putFound(ctx, f, options)
		if line.Outcome == Repaired {
			line.Paths = f.drift
		}
		return err
	})
	if line.Name == "" {
		line.Name = entry.Name
	}
	return line, err
}

func (a *Authorizer) putFound(ctx context.Context, f found, options Options) (Outcome, error) {
	switch {
	case f.inUse() == "":
		return Created, a.apply(ctx, f.entry)
	case len(f.drift) > 0:
		return Repaired, a.repair(ctx, f, options)
	case f.live == nil:
		return Adopted, nil
	case isOurs(f):
		return Unchanged, nil
	}
	return Adopted, a.apply(ctx, f.entry)
}

// isOurs says that there is nothing to win by an apply: the live object records one of ours, or there is no field that it
// could record.
func isOurs(f found) bool {
	return !hasFields(f.entry) || slices.ContainsFunc(f.live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == guardian.FieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == ""
	})
}

// hasFields says that the manifest has more than what identifies the object.
func hasFields(entry *reserved.Resource) bool {
	object := entry.Object()
	for _, identity := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}} {
		unstructured.RemoveNestedField(object.Object, identity...)
	}
	metadata, _ := object.Object["metadata"].(map[string]any)
	return len(object.Object) > 1 || len(metadata) > 0
}

// apply writes the manifest, and makes sure that the object is then as the manifest says.
func (a *Authorizer) apply(ctx context.Context, entry *reserved.Resource) error {
	options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
	live, err := a.resource(entry).Apply(ctx, entry.Name, entry.Object(), options)
	if err != nil {
		return fmt.Errorf("apply %s: %w", nameOf(entry), err)
	}
	drift, err := driftOf(entry, live)
	if err != nil {
		return err
	}
	if len(drift) > 0 {
		return fmt.Errorf("applied %s, and the cluster made of it something else (%s); look for a webhook that changes it, or "+
			"add to the manifest what the API server sets: %w", nameOf(entry), strings.Join(drift, ", "), ErrDiffers)
	}
	return nil
}

// repair puts everything right in one write, so that a guard sees one restoration, and then owns it by an apply.
func (a *Authorizer) repair(ctx context.Context, f found, options Options) error {
	if frozen := f.irreparable(); len(frozen) > 0 {
		return fmt.Errorf("%s cannot be repaired in %s; delete it and authorize again: %w",
			f.name(), strings.Join(frozen, ", "), ErrDiffers)
	}
	if !options.Repair {
		return fmt.Errorf("%s was changed meanwhile in %s; authorize with --repair: %w",
			f.name(), strings.Join(f.drift, ", "), ErrDiffers)
	}
	if f.live != nil {
		if err := a.putRight(ctx, f); err != nil {
			return err
		}
	}
	if slices.Contains(f.drift, rootCAPath) {
		return a.renewCA(ctx, f, options.wait())
	}
	return nil
}

// putRight makes the live object what its manifest says.
func (a *Authorizer) putRight(ctx context.Context, f found) error {
	patch, err := repairPatch(f)
	if err != nil {
		return err
	}
	written := metav1.PatchOptions{FieldManager: guardian.FieldManager}
	_, err = a.resource(f.entry).Patch(ctx, f.entry.Name, types.MergePatchType, patch, written)
	if err != nil {
		return fmt.Errorf("repair %s: %w", nameOf(f.entry), err)
	}
	return a.apply(ctx, f.entry)
}

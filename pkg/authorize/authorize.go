// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package authorize checks whether a cluster is ready, applies the reserved manifests, and proves the credential.
package authorize

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// DefaultWait is the zero value of Options.Wait.
const DefaultWait = 60 * time.Second

// Authorizer works on one cluster. It is safe for concurrent use, but two concurrent Authorize conflict.
type Authorizer struct {
	cluster live.Cluster
	// connect makes the client that authenticates with the proved token.
	connect func(*rest.Config) (kubernetes.Interface, error)
}

// New returns an Authorizer.
func New(cluster live.Cluster) *Authorizer {
	connect := func(config *rest.Config) (kubernetes.Interface, error) { return kubernetes.NewForConfig(config) }
	return &Authorizer{cluster: cluster, connect: connect}
}

// Options are the choices of one run. The zero value requires private network access and repairs nothing.
type Options struct {
	PrivateNetwork NetworkMode
	// AskCloud asks Tencent Cloud about private network access; nil to look at the cluster only.
	AskCloud func(context.Context) tke.Answer
	// Repair repairs drift. Without it, drift fails the run.
	Repair bool
	// Again authorizes what was retired. Without it, the mark of a retirement fails the run.
	Again bool
	// Wait is the time limit for each token and its permissions; 0 means DefaultWait.
	Wait time.Duration
	// Report receives each line when it happens, in the order of the files; nil for none.
	Report func(Line)
	// Checked receives the preflight's checks before the first write; nil for none.
	Checked func(Checks)
}

// NetworkMode says how Preflight treats disabled private network access.
type NetworkMode string

// The modes. The zero NetworkMode is NetworkEnforce.
const (
	// NetworkEnforce fails the check.
	NetworkEnforce NetworkMode = "enforce"
	// NetworkWarn makes the check Unknown, with the remedy.
	NetworkWarn NetworkMode = "warn"
	// NetworkSkip skips the check.
	NetworkSkip NetworkMode = "skip"
)

// Result is what one Authorize did.
type Result struct {
	Checks
	// Lines are in the order of the files.
	Lines []Line `json:"lines"`
	// Proofs holds one for each proved credential.
	Proofs []Proof `json:"proofs"`
}

// Authorize runs the preflight, applies each reserved manifest by server-side apply, those of a file in their order, waits until
// each token Secret is filled, and proves each token. It can be repeated: an object that equals its manifest is not written.
//
// The Result is valid with an error too. Errors: *PreflightError or ErrRetired (nothing was written), ErrDiffers,
// ErrTokenNotFilled, ErrTokenUnproved, or one of the API server.
func (a *Authorizer) Authorize(ctx context.Context, options Options) (Result, error) {
	options.Wait = cmp.Or(options.Wait, DefaultWait)
	retired, err := a.retired(ctx, options)
	if err != nil {
		return Result{}, err
	}
	result := Result{Checks: a.Preflight(ctx, options)}
	if options.Checked != nil {
		options.Checked(result.Checks)
	}
	if failed := result.Failed(); len(failed) > 0 {
		return result, &PreflightError{Failed: failed}
	}
	for _, reservation := range retired {
		if err := a.unmark(ctx, reservation.Name); err != nil {
			return result, err
		}
	}
	credentials, err := a.applyAll(ctx, options, &result)
	if err != nil {
		return result, err
	}
	proofs, errs := make([]Proof, len(credentials)), make([]error, len(credentials))
	live.Each(len(credentials), func(i int) { proofs[i], errs[i] = a.prove(ctx, credentials[i], options.Wait) })
	for i := range proofs {
		if errs[i] != nil {
			return result, errs[i]
		}
		result.Proofs = append(result.Proofs, proofs[i])
	}
	return result, nil
}

// reachPause is the time between two attempts to authorize while the guard is not reachable.
const reachPause = 2 * time.Second

// AuthorizeReachable is Authorize, which it repeats, for Options.Wait, while the only failed check is WebhookReachable: the API server
// may not reach a guard that has just started. Options.Checked receives the checks of each attempt.
func (a *Authorizer) AuthorizeReachable(ctx context.Context, options Options) (Result, error) {
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(options.Wait, DefaultWait))
	defer cancel()
	var result Result
	var err error
	_ = wait.PollUntilContextCancel(bounded, reachPause, true, func(context.Context) (bool, error) {
		result, err = a.Authorize(ctx, options)
		failed, ok := errors.AsType[*PreflightError](err)
		return !ok || len(failed.Failed) > 1 || failed.Failed[0].ID != WebhookReachable, nil
	})
	return result, err
}

// applyAll applies the manifests of several reservations at the same time, and those of one in their order. It returns the credentials to
// prove, or the first error in the order of the reservations. After an error, it begins with no further reservation.
func (a *Authorizer) applyAll(ctx context.Context, options Options, result *Result) ([]credential, error) {
	reservations := a.cluster.Set.Reservations()
	credentials, errs := make([][]credential, len(reservations)), make([]error, len(reservations))
	lines := make([]chan Line, len(reservations))
	for i, reservation := range reservations {
		lines[i] = make(chan Line, len(reservation.Resources)) // no reservation waits until those before it are reported
	}
	var failed atomic.Bool
	go live.Each(len(reservations), func(i int) {
		defer close(lines[i])
		if failed.Load() {
			return
		}
		credentials[i], errs[i] = a.applyReservation(ctx, reservations[i], options, lines[i])
		if errs[i] != nil {
			failed.Store(true)
		}
	})
	for i := range lines {
		for line := range lines[i] {
			result.Lines = append(result.Lines, line)
			if options.Report != nil {
				options.Report(line)
			}
		}
	}
	return slices.Concat(credentials...), cmp.Or(errs...)
}

// applyReservation applies every manifest of a reservation, and returns the credentials to prove. Lines has room for one of each resource.
func (a *Authorizer) applyReservation(ctx context.Context, reservation *reserved.Reservation, options Options, lines chan<- Line) (
	[]credential, error,
) {
	var credentials []credential
	for _, resource := range reservation.WithManifest() {
		line, err := a.put(ctx, resource, options)
		if err != nil {
			return nil, err
		}
		lines <- line
		if !resource.IsTokenSecret() || line.Unproved {
			continue
		}
		if granted := grants(reservation, resource); len(granted) > 0 {
			credentials = append(credentials, credential{resource: resource, secret: line.Name, grants: granted})
		}
	}
	return credentials, nil
}

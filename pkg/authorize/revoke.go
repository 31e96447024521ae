// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Why Retire and Rotate do not finish.
var (
	// ErrTokenAccepted says that the API server still accepts a token that was revoked.
	ErrTokenAccepted = errors.New("the API server accepts it")
	// ErrApproval says that the Unlock of the run waits for the approval by a second user.
	ErrApproval = errors.New("the unlock waits for the approval by a second user")
)

// UnlockReader reads unlocks. Await returns once every replica of the guard sees one of the states.
type UnlockReader interface {
	List(ctx context.Context) ([]v1alpha1.Unlock, error)
	Await(ctx context.Context, name string, states ...v1alpha1.UnlockState) (*v1alpha1.Unlock, error)
}

// Unlocks opens and closes unlocks in the name of the caller.
type Unlocks interface {
	UnlockReader
	Open(ctx context.Context, spec v1alpha1.UnlockSpec, duration time.Duration) (*v1alpha1.Unlock, error)
	Close(ctx context.Context, name string) (*v1alpha1.Unlock, error)
}

// Records stores audit records.
type Records interface {
	Merge(ctx context.Context, record, last *v1alpha1.AuditRecord) (*v1alpha1.AuditRecord, error)
}

// Revocation are the choices of Retire and Rotate. Reservation, Reason, Unlocks and Records are required.
type Revocation struct {
	Reservation *reserved.Reservation
	// Reason is that of the Unlock and of the record, 10 to 500 characters.
	Reason string
	// KeepClusterRole leaves the ClusterRoles. Only Retire reads it.
	KeepClusterRole bool
	// Duration is that of the Unlock; 0 means 10 minutes.
	Duration time.Duration
	// Wait is the time limit for each deletion and each proof; 0 means DefaultWait.
	Wait    time.Duration
	Unlocks Unlocks
	Records Records
	// Report receives each step when it is done; nil for none.
	Report func(Step)
}

// Step is one step of Retire or Rotate.
type Step struct {
	// Object is the object of the step: "clusterroles.rbac.authorization.k8s.io/some-role", or "unlock some-name".
	Object string `json:"object"`
	// Outcome is what became of it: deleted, absent, kept, created, opened, closed, stored, "refused (401)", accepted,
	// or how the reservation is marked.
	Outcome string `json:"outcome"`
}

// String writes the step for a terminal.
func (s Step) String() string { return s.Object + " " + s.Outcome }

// run is one run of Retire or Rotate.
type run struct {
	*Authorizer
	Revocation
	user   string
	unlock string
	// removed is when the last object was deleted, at the latest.
	removed time.Time
	steps   []Step
}

func (a *Authorizer) newRun(ctx context.Context, options Revocation) (*run, error) {
	options.Wait = cmp.Or(options.Wait, DefaultWait)
	options.Duration = cmp.Or(options.Duration, 10*time.Minute)
	user, err := client.UserName(ctx, a.cluster.Client)
	if err != nil {
		return nil, err
	}
	return &run{Authorizer: a, Revocation: options, user: user, removed: time.Now()}, nil
}

func (r *run) report(object, outcome string) {
	r.steps = append(r.steps, Step{object, outcome})
	if r.Report != nil {
		r.Report(r.steps[len(r.steps)-1])
	}
}

// open opens an Unlock for the caller, or finds the one of an interrupted run, if a guard is installed.
func (r *run) open(ctx context.Context, operations ...admissionv1.Operation) error {
	installed, err := r.cluster.WebhookConfiguration(ctx)
	if err != nil || installed == nil {
		return err
	}
	if r.unlock, err = r.findUnlock(ctx, operations); err != nil {
		return err
	}
	if r.unlock == "" {
		spec := v1alpha1.UnlockSpec{Reservation: r.Reservation.Name, Reason: r.Reason, Operations: operations}
		opened, err := r.Unlocks.Open(ctx, spec, r.Duration)
		if err != nil {
			return err
		}
		r.unlock = opened.Name
	}
	seen, err := r.Unlocks.Await(ctx, r.unlock, v1alpha1.UnlockOpen, v1alpha1.UnlockPending)
	if err != nil {
		return err
	}
	for _, state := range seen.Status.Replicas {
		if state == v1alpha1.UnlockPending {
			return fmt.Errorf("%w: %s unlock approve %s: then run this command again", ErrApproval, guardian.Name, r.unlock)
		}
	}
	r.report("unlock "+r.unlock, "opened")
	return nil
}

// findUnlock returns the name of an Unlock that an interrupted run has opened; "" if there is none.
func (r *run) findUnlock(ctx context.Context, operations []admissionv1.Operation) (string, error) {
	unlocks, err := r.Unlocks.List(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(unlocks, func(u v1alpha1.Unlock) bool {
		return u.Spec.Reservation == r.Reservation.Name && u.Spec.RequestedBy == r.user && u.Spec.Reason == r.Reason && !u.Spec.Closed &&
			len(u.Spec.Users) == 0 && len(u.Spec.Resources) == 0 && slices.Equal(u.Spec.Operations, operations) &&
			time.Until(u.Spec.ExpiresAt.Time) > r.Wait
	})
	if i < 0 {
		return "", nil
	}
	return unlocks[i].Name, nil
}

// finish records the run, closes its unlocks, and removes the witness. Each can be repeated.
func (r *run) finish(ctx context.Context, secret string, w *witness, event audit.Event) error {
	event.Time, event.Unlock, event.Justification, event.User.Name = w.Since.Time, w.Unlock, w.Reason, w.By
	event.Object = r.Reservation.Resources[0].Reference(r.Reservation.Resources[0].Namespace, r.Reservation.Resources[0].Name)
	event.Source = v1alpha1.SourceGuard
	stored, err := r.Records.Merge(ctx, event.Record(guardian.Name, 1), nil)
	switch {
	case err == nil:
		r.report("audit record "+stored.Name, "stored")
	case w.Unlock != "": // a guard is installed
		return fmt.Errorf("%w: run the command again", err)
	default:
		r.report("audit record", "not stored: "+err.Error())
	}
	for _, name := range slices.Compact([]string{w.Unlock, r.unlock}) {
		if name == "" {
			continue
		}
		if _, err := r.Unlocks.Close(ctx, name); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if name == r.unlock {
			if _, err := r.Unlocks.Await(ctx, name, v1alpha1.UnlockClosed, v1alpha1.UnlockExpired); err != nil {
				return err
			}
		}
		r.report("unlock "+name, "closed")
	}
	return r.removeWitness(ctx, secret)
}

// target is an object to delete.
type target struct {
	resource *reserved.Resource
	name     string
	// live is nil if the object is absent.
	live *unstructured.Unstructured
}

// String names the object.
func (t target) String() string { return t.resource.Reference(t.resource.Namespace, t.name).String() }

// targets returns the objects of a reservation in the order in which they are deleted: first what gives the credential its
// permissions, then the credential, at last the roles. Secrets come under any name that is reserved.
func (a *Authorizer) targets(ctx context.Context, reservation *reserved.Reservation) ([]target, error) {
	resources := slices.Clone(reservation.Resources)
	slices.SortStableFunc(resources, func(a, b *reserved.Resource) int { return cmp.Compare(rank(a), rank(b)) })
	var all []target
	for _, resource := range resources {
		found, err := a.find(ctx, resource)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func rank(resource *reserved.Resource) int {
	switch {
	case isBinding(resource):
		return 0
	case resource.IsTokenSecret():
		return 1
	case resource.IsServiceAccount():
		return 3
	case isRole(resource):
		return 4
	}
	return 2
}

func (a *Authorizer) find(ctx context.Context, resource *reserved.Resource) ([]target, error) {
	switch {
	case resource.Guard == reserved.GuardExistence:
		return nil, nil
	case !resource.IsTokenSecret():
		live, err := a.cluster.Get(ctx, resource, resource.Name)
		return []target{{resource, resource.Name, live}}, err
	}
	list, err := a.cluster.Resource(resource).List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) && resource.HasManifest() {
		// The chart's Job may not list Secrets. Their tokens end with the ServiceAccount, and kube-controller-manager deletes the others.
		live, err := a.cluster.Get(ctx, resource, resource.Name)
		return []target{{resource, resource.Name, live}}, err
	}
	if err != nil {
		return nil, fmt.Errorf("list secrets in namespace %s: %w", resource.Namespace, err)
	}
	var found []target
	for i := range list.Items {
		secret := &list.Items[i]
		account := secret.GetAnnotations()[corev1.ServiceAccountNameKey]
		if resource.Covers(reserved.Identity{Namespace: secret.GetNamespace(), Name: secret.GetName(), Account: account}) {
			found = append(found, target{resource, secret.GetName(), secret})
		}
	}
	if len(found) == 0 && resource.HasManifest() {
		found = append(found, target{resource, resource.Name, nil})
	}
	return found, nil
}

// remove deletes an object and waits until it is gone.
func (r *run) remove(ctx context.Context, t target) error {
	if t.live == nil {
		r.report(t.String(), "absent")
		return nil
	}
	uid := t.live.GetUID()
	err := r.cluster.Resource(t.resource).Delete(ctx, t.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", t, err)
	}
	err = wait.PollUntilContextTimeout(ctx, pollInterval, r.Wait, true, func(ctx context.Context) (bool, error) {
		live, err := r.cluster.Get(ctx, t.resource, t.name)
		return err == nil && (live == nil || live.GetUID() != uid), err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf("delete %s: it is still there after %s: look for its finalizers, remove them, and run the command again", t, r.Wait)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", t, err)
	}
	r.removed = time.Now()
	r.report(t.String(), "deleted")
	return nil
}

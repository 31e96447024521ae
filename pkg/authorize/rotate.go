// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrNoCredential says that there is no credential to replace.
var ErrNoCredential = errors.New("no credential to replace")

// RotateResult is what one Rotate did.
type RotateResult struct {
	// Namespace and Secret name the new token Secret.
	Namespace string `json:"namespace"`
	Secret    string `json:"secret"`
	Steps     []Step `json:"steps"`
	// Proof is that of the new token.
	Proof Proof `json:"proof"`
}

// Rotate replaces the credential of a reservation: the ServiceAccount gets another uid and the token Secret another name, because
// a token is a function of both, and of nothing else. It proves that the new token works and the old ones are refused, and
// records it. The old token loses its permissions first. After an interruption at any step, another Rotate finishes.
//
// The Result holds the steps with an error too. Errors: ErrNoCredential, ErrRetired and ErrApproval (nothing was written but the
// Unlock), ErrTokenAccepted, those of Authorize, of Unlocks and of the API server.
func (a *Authorizer) Rotate(ctx context.Context, options Revocation) (RotateResult, error) {
	r, err := a.newRun(ctx, options)
	if err != nil {
		return RotateResult{}, err
	}
	result, err := r.rotate(ctx)
	result.Steps = r.steps
	return result, err
}

func (r *run) rotate(ctx context.Context) (RotateResult, error) {
	retired, err := r.cluster.Lookups().Retirement(ctx, r.Reservation.Name)
	if err != nil {
		return RotateResult{}, err
	}
	if retired != nil {
		return RotateResult{}, refuseRetired(r.Reservation.Owner, retired)
	}
	secret, account, err := r.credential()
	if err != nil {
		return RotateResult{}, err
	}
	result := RotateResult{Namespace: secret.Namespace}
	w, err := r.begin(ctx, secret)
	if err != nil {
		return result, err
	}
	result.Secret = w.NewSecret
	if err := r.removeOld(ctx, secret, w); err != nil {
		return result, err
	}
	if err := r.create(ctx, account, secret, w.NewSecret); err != nil {
		return result, err
	}
	c := credential{resource: secret, secret: w.NewSecret, grants: grants(r.Reservation, secret)}
	if result.Proof, err = r.prove(ctx, c, r.Wait); err != nil {
		return result, err
	}
	r.report("token of "+target{secret, w.NewSecret, nil}.String(), "accepted")
	if err := r.proveRefused(ctx, w.Tokens); err != nil {
		return result, err
	}
	return result, r.finish(ctx, rotatingSecret, w, audit.Event{
		Outcome: v1alpha1.Rotated, Operation: admissionv1.Update, Reason: audit.Rotation,
		Message: fmt.Sprintf("The credential of %s was replaced. The API server refuses its %d old tokens.", r.Reservation.Owner, len(w.Tokens)),
	})
}

// credential returns the one token Secret of the reservation that can have another name, and its ServiceAccount.
func (r *run) credential() (secret, account *reserved.Resource, err error) {
	for _, resource := range r.Reservation.Resources {
		switch {
		case !resource.IsTokenSecret():
		case secret != nil || resource.NamePrefix == "" || !resource.HasManifest():
			return nil, nil, fmt.Errorf("%w: reservation %q must have exactly one token Secret, with a namePrefix",
				ErrNoCredential, r.Reservation.Name)
		default:
			secret = resource
		}
	}
	i := slices.IndexFunc(r.Reservation.Resources, func(resource *reserved.Resource) bool {
		return secret != nil && resource.IsServiceAccount() && resource.Namespace == secret.Namespace && resource.Name == secret.Account
	})
	if i < 0 {
		return nil, nil, fmt.Errorf("%w: reservation %q has no token Secret of its own ServiceAccount", ErrNoCredential, r.Reservation.Name)
	}
	return secret, r.Reservation.Resources[i], nil
}

// begin opens the Unlock, and stores the witness unless an interrupted run has left one.
func (r *run) begin(ctx context.Context, secret *reserved.Resource) (*witness, error) {
	w, err := r.readWitness(ctx, rotatingSecret, r.Reservation.Name)
	if err != nil {
		return nil, err
	}
	account, err := r.cluster.Account(ctx, secret)
	if err != nil {
		return nil, err
	}
	if account == nil && w == nil {
		return nil, fmt.Errorf("%w: ServiceAccount %s/%s is absent: run %s authorize",
			ErrNoCredential, secret.Namespace, secret.Account, guardian.Name)
	}
	if err := r.open(ctx, admissionv1.Create, admissionv1.Update, admissionv1.Delete); err != nil {
		return nil, err
	}
	if w == nil {
		w = r.newWitness()
		w.AccountUID, w.NewSecret = account.UID, secret.NamePrefix+rand.String(5)
	}
	if account == nil || account.UID != w.AccountUID {
		return w, nil
	}
	targets, err := r.targets(ctx, r.Reservation)
	if err != nil {
		return nil, err
	}
	return w, r.keep(ctx, rotatingSecret, w, targets)
}

// removeOld deletes the bindings and the ServiceAccount unless it is the new one, and every token Secret but the new one.
func (r *run) removeOld(ctx context.Context, secret *reserved.Resource, w *witness) error {
	targets, err := r.targets(ctx, r.Reservation)
	if err != nil {
		return err
	}
	isOld := slices.ContainsFunc(targets, func(t target) bool {
		return t.resource.IsServiceAccount() && t.name == secret.Account && t.live != nil && t.live.GetUID() == w.AccountUID
	})
	for _, t := range targets {
		isAccount := t.resource.IsServiceAccount() && t.name == secret.Account
		isOther := t.resource.IsTokenSecret() && t.name != w.NewSecret
		if isOther && t.live != nil || isOld && (isAccount || bindsAccount(t.resource, secret)) {
			if err := r.remove(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// bindsAccount reports whether the resource binds the ServiceAccount of the token Secret.
func bindsAccount(resource, secret *reserved.Resource) bool {
	return isBinding(resource) && slices.ContainsFunc(readBinding(resource).Subjects, func(s rbacv1.Subject) bool {
		return s.Kind == rbacv1.ServiceAccountKind && s.Namespace == secret.Namespace && s.Name == secret.Account
	})
}

// create applies the ServiceAccount, its bindings and the new token Secret.
func (r *run) create(ctx context.Context, account, secret *reserved.Resource, name string) error {
	for _, resource := range r.Reservation.Resources {
		if resource != account && !bindsAccount(resource, secret) {
			continue
		}
		if err := r.apply(ctx, resource); err != nil {
			return err
		}
		r.report(target{resource, resource.Name, nil}.String(), "created")
	}
	live, err := r.cluster.Account(ctx, secret)
	if err != nil {
		return err
	}
	if live == nil {
		return fmt.Errorf("serviceaccount %s/%s: another client has deleted it: run the command again", secret.Namespace, secret.Account)
	}
	if err := r.note(ctx, lookup.Credential{
		Namespace: secret.Namespace, Account: secret.Account, AccountUID: string(live.UID), Secret: name, Exists: true,
	}); err != nil {
		return err
	}
	object := secret.Object()
	object.SetName(name)
	_, err = r.cluster.Resource(secret).Apply(ctx, name, object, metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("apply %s: %w", target{secret, name, nil}, err)
	}
	r.report(target{secret, name, nil}.String(), "created")
	return nil
}

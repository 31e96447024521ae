// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// The Secrets in the guard's namespace that hold a witness while Retire and Rotate run. An interrupted run leaves it to the next.
const (
	retiringSecret = guardian.Name + "-retiring"
	rotatingSecret = guardian.Name + "-rotating"
	witnessKey     = "witness"
)

// boundLifetime is how long a bound token is valid: the minimum of the API server.
const boundLifetime = 10 * time.Minute

// witness is what the proof needs that is lost with the deleted objects, and how the run began.
type witness struct {
	Reservation string      `json:"reservation"`
	Since       metav1.Time `json:"since"`
	By          string      `json:"by"`
	Unlock      string      `json:"unlock,omitempty"`
	Reason      string      `json:"reason"`
	// AccountUID is that of the ServiceAccount to replace, and NewSecret the name of its next token Secret. Only Rotate has them.
	AccountUID types.UID `json:"accountUID,omitempty"`
	NewSecret  string    `json:"newSecret,omitempty"`
	// Tokens are the tokens that the API server must refuse, by what they are.
	Tokens map[string]string `json:"tokens"`
}

// readWitness returns what an interrupted run for the reservation left; nil if there is none.
func (a *Authorizer) readWitness(ctx context.Context, name, reservation string) (*witness, error) {
	stored, err := a.cluster.Client.CoreV1().Secrets(a.cluster.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	w := &witness{}
	if err == nil {
		err = json.Unmarshal(stored.Data[witnessKey], w)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("read secret %s/%s, which an interrupted run has left: %w", a.cluster.Namespace, name, err)
	case w.Reservation != reservation:
		return nil, fmt.Errorf("secret %s/%s is of an interrupted run for the reservation %q: finish that one first: --reservation %s",
			a.cluster.Namespace, name, w.Reservation, w.Reservation)
	}
	return w, nil
}

// storeWitness creates or replaces it.
func (a *Authorizer) storeWitness(ctx context.Context, name string, w *witness) error {
	data, _ := json.Marshal(w) // this type always marshals
	secret := applycorev1.Secret(name, a.cluster.Namespace).WithData(map[string][]byte{witnessKey: data})
	err := a.inNamespace(ctx, func() error {
		options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
		_, err := a.cluster.Client.CoreV1().Secrets(a.cluster.Namespace).Apply(ctx, secret, options)
		return err
	})
	if err != nil {
		return fmt.Errorf("write secret %s/%s: %w", a.cluster.Namespace, name, err)
	}
	return nil
}

func (a *Authorizer) removeWitness(ctx context.Context, name string) error {
	err := a.cluster.Client.CoreV1().Secrets(a.cluster.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete secret %s/%s, which holds old tokens: %w", a.cluster.Namespace, name, err)
	}
	return nil
}

func (r *run) newWitness() *witness {
	return &witness{
		Reservation: r.Reservation.Name, Since: metav1.Now(), By: r.user, Unlock: r.unlock, Reason: r.Reason, Tokens: map[string]string{},
	}
}

// keep adds the tokens of the targets to a witness, and stores it.
func (r *run) keep(ctx context.Context, name string, w *witness, targets []target) error {
	if err := r.addTokens(ctx, w, targets); err != nil {
		return err
	}
	return r.storeWitness(ctx, name, w)
}

// addTokens adds the tokens in Secrets, and a bound token of each live ServiceAccount.
func (a *Authorizer) addTokens(ctx context.Context, w *witness, targets []target) error {
	for _, t := range targets {
		if t.live == nil {
			continue
		}
		switch {
		case t.resource.IsTokenSecret():
			encoded, _, _ := unstructured.NestedString(t.live.Object, "data", corev1.ServiceAccountTokenKey)
			if token, err := base64.StdEncoding.DecodeString(encoded); err == nil && len(token) > 0 {
				w.Tokens["token of "+t.String()] = string(token)
			}
		case t.resource.IsServiceAccount():
			lifetime := int64(boundLifetime / time.Second)
			answer, err := a.cluster.Client.CoreV1().ServiceAccounts(t.resource.Namespace).CreateToken(ctx, t.name, &authenticationv1.TokenRequest{
				Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime},
			}, metav1.CreateOptions{})
			if apierrors.IsForbidden(err) && strings.Contains(err.Error(), `webhook "`+registration.SideDoorPrefix) {
				continue // the guard denies side doors, also to `retire`: the proof goes without a bound token
			}
			if err != nil {
				return fmt.Errorf("mint a bound token of %s for the proof: %w", t, err)
			}
			w.Tokens["bound token of "+t.String()] = answer.Status.Token
		}
	}
	return nil
}

// tokenCache is longer than an API server accepts a token that it has accepted before: 10 seconds, the TokenSuccessCacheTTL of
// k8s.io/kubernetes/pkg/kubeapiserver/authenticator. Other tokens than those of the proof may be in the cache, on any API server.
const tokenCache = 11 * time.Second

// proveRefused waits until no API server can know the tokens from before the deletions, and then until one refuses each as invalid.
func (r *run) proveRefused(ctx context.Context, tokens map[string]string) error {
	if len(tokens) == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait until the tokens are refused: %w", context.Cause(ctx))
	case <-time.After(time.Until(r.removed.Add(tokenCache))):
	}
	bounded, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		asToken, err := r.connectBy(tokens[name])
		if err != nil {
			return err
		}
		last := ErrTokenAccepted
		err = wait.PollUntilContextCancel(bounded, pollInterval, true, func(ctx context.Context) (bool, error) {
			_, err := client.UserName(ctx, asToken)
			if err != nil && ctx.Err() == nil {
				last = fmt.Errorf("ask the API server: %w", err)
			}
			return apierrors.IsUnauthorized(err), nil
		})
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("prove that the %s is refused: %w", name, context.Cause(ctx))
		case err != nil:
			return fmt.Errorf("prove that the %s is refused, for %s: %w: run the command again", name, r.Wait, last)
		}
		r.report(name, "refused (401)")
	}
	return nil
}

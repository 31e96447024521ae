// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrTokenNotFilled says that a token Secret was not filled in time.
var ErrTokenNotFilled = errors.New("token Secret not filled")

// pollInterval is how often the cluster is asked for what is waited for. kube-controller-manager fills a token within
// milliseconds.
const pollInterval = 250 * time.Millisecond

// credential is a token Secret whose token is to be proved.
type credential struct {
	entry *reserved.Resource
	// secret is the name of the Secret that is used.
	secret string
	// grants are what the reserved roles give to its account; at least one.
	grants []permission
}

// String names the Secret.
func (c credential) String() string { return c.entry.Namespace + "/" + c.secret }

// waitForToken returns the token once the Secret holds one for the live ServiceAccount. It waits until ctx ends; the error
// is then ErrTokenNotFilled with what was seen last.
func (a *Authorizer) waitForToken(ctx context.Context, c credential) (string, error) {
	var token, state string
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		seen, err := a.readToken(ctx, c.entry, c.secret)
		if apierrors.IsForbidden(err) {
			return false, err
		}
		if err != nil {
			seen.state = err.Error()
		}
		if ctx.Err() == nil || state == "" {
			token, state = seen.token, seen.state
		}
		return token != "", nil
	})
	switch {
	case err == nil:
		return token, nil
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTooLong):
		return "", fmt.Errorf("wait for token Secret %s: %w", c, context.Cause(ctx))
	case ctx.Err() == nil:
		return "", fmt.Errorf("wait for token Secret %s: %w", c, err)
	}
	return "", fmt.Errorf("%w: %s: %s. kube-controller-manager fills it: look whether it runs, at its log, and whether it "+
		"has --service-account-private-key-file; on a managed cluster ask the provider. Then authorize again",
		ErrTokenNotFilled, c, state)
}

// errTooLong is the cause of a wait that has reached its end.
var errTooLong = errors.New("waited long enough")

// tokenState is what a token Secret holds: a token, or why there is none.
type tokenState struct{ token, state string }

// readToken reads a token that belongs to the ServiceAccount as it lives now.
func (a *Authorizer) readToken(ctx context.Context, entry *reserved.Resource, name string) (tokenState, error) {
	account, err := a.account(ctx, entry)
	if err != nil {
		return tokenState{}, err
	}
	if account == nil {
		return tokenState{state: "its ServiceAccount " + entry.Account + " is absent"}, nil
	}
	secret, err := a.cluster.Client.CoreV1().Secrets(entry.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		const why = "the control plane deletes a token Secret whose ServiceAccount is not the live one"
		return tokenState{state: "it is absent; " + why}, nil
	}
	if err != nil {
		return tokenState{}, fmt.Errorf("read secret %s/%s: %w", entry.Namespace, name, err)
	}
	return tokenOf(secret, account), nil
}

// tokenOf returns the token only if its claims name this Secret and this account. Whether the API server accepts it, a trial
// tells.
func tokenOf(secret *corev1.Secret, account *corev1.ServiceAccount) tokenState {
	token := secret.Data[corev1.ServiceAccountTokenKey]
	want := policy.TokenClaims{
		Namespace: secret.Namespace, Secret: secret.Name, Account: account.Name, AccountUID: string(account.UID),
	}
	claims, isToken := policy.ReadTokenClaims(token)
	switch uid := secret.Annotations[corev1.ServiceAccountUIDKey]; {
	case len(token) == 0:
		return tokenState{state: "it holds no token yet"}
	case types.UID(uid) != account.UID:
		return tokenState{state: "its annotation " + corev1.ServiceAccountUIDKey + " names an earlier ServiceAccount, or none"}
	case !isToken:
		return tokenState{state: "what it holds is not a token of a ServiceAccount"}
	case claims != want:
		return tokenState{state: "its token was issued for another ServiceAccount or another Secret"}
	}
	return tokenState{token: string(token)}
}

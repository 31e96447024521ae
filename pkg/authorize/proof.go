// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// ErrTokenUnproved says that a token does not authenticate as its ServiceAccount, or may not do what the reserved roles
// say.
var ErrTokenUnproved = errors.New("token not proved")

// Proof says that a credential works, as tried out with its own token. It does not hold the token.
type Proof struct {
	// Secret is "namespace/name".
	Secret string `json:"secret"`
	// User is who the API server takes the token's bearer for.
	User string `json:"user"`
	// Permissions is how many single permissions of the reserved roles were asked for; all are given.
	Permissions int `json:"permissions"`
}

// prove waits for a token and tries it out, for at most the given time together: several API servers, and their caches of
// roles, take a moment to know what was just written.
func (a *Authorizer) prove(ctx context.Context, c credential, limit time.Duration) (Proof, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	token, err := a.waitForToken(bounded, c)
	if err != nil {
		return Proof{}, err
	}
	client, err := a.tokenClient(token)
	if err != nil {
		return Proof{}, fmt.Errorf("make a client for token Secret %s: %w", c, err)
	}
	t := trial{credential: c, client: client, open: c.grants}
	if err := wait.PollUntilContextCancel(bounded, pollInterval, true, t.succeeds); err != nil {
		return Proof{}, t.failure(ctx)
	}
	return Proof{Secret: c.String(), User: t.user(), Permissions: len(c.grants)}, nil
}

// tokenClient authenticates with the token and with nothing else.
func (a *Authorizer) tokenClient(token string) (kubernetes.Interface, error) {
	config := rest.AnonymousClientConfig(a.cluster.Config)
	config.BearerToken = token
	return a.connect(config)
}

// trial tries out one token.
type trial struct {
	credential
	client kubernetes.Interface
	// open are the permissions that have not been seen yet.
	open []permission
	// last is why the latest round did not succeed.
	last error
}

// user is whom the token must authenticate.
func (t *trial) user() string {
	return "system:serviceaccount:" + t.entry.Namespace + ":" + t.entry.Account
}

// succeeds goes one round. An error is a reason to try again, whatever it is.
func (t *trial) succeeds(ctx context.Context) (bool, error) {
	err := t.round(ctx)
	if ctx.Err() == nil || t.last == nil {
		t.last = err // the end of the wait itself is no news
	}
	return err == nil, nil
}

func (t *trial) round(ctx context.Context) error {
	review, err := t.client.AuthenticationV1().SelfSubjectReviews().Create(
		ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("authenticate with it: %w", err)
	}
	if name := review.Status.UserInfo.Username; name != t.user() {
		return fmt.Errorf("it authenticates as %q, and not as %q", name, t.user())
	}
	open, err := missing(ctx, t.client, t.open)
	if err != nil {
		return err
	}
	if t.open = open; len(open) > 0 {
		return fmt.Errorf("it may not: %s. Look whether another authorizer of the API server denies it, and whether the role "+
			"and its binding are as reserved (status)", join(open))
	}
	return nil
}

// failure tells why there is no proof; ctx is the caller's.
func (t *trial) failure(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("try out the token of Secret %s: %w", t.credential, err)
	}
	return fmt.Errorf("%w: Secret %s: %w", ErrTokenUnproved, t.credential, t.last)
}

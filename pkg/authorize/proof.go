// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Why a credential is not proved.
var (
	// ErrTokenNotFilled says that kube-controller-manager did not fill a token Secret in time.
	ErrTokenNotFilled = errors.New("token Secret not filled")
	// ErrTokenUnproved says that a token does not authenticate as its account, or lacks a permission of the reserved roles.
	ErrTokenUnproved = errors.New("token not proved")
)

// pollInterval is the pause between two reads. kube-controller-manager fills a token within milliseconds.
const pollInterval = 250 * time.Millisecond

// credential is a token Secret whose token is to be proved.
type credential struct {
	resource *reserved.Resource
	// secret is the name of the Secret in use.
	secret string
	// grants are the permissions of its account from the reserved roles; at least one.
	grants []permission
}

func (c credential) String() string { return c.resource.Namespace + "/" + c.secret }

func (c credential) user() string {
	return reserved.AccountUser(c.resource.Namespace, c.resource.Account)
}

// Proof says that a credential works. It does not hold the token.
type Proof struct {
	// Secret is "namespace/name".
	Secret string `json:"secret"`
	// User is the user that the API server authenticates the token as.
	User string `json:"user"`
	// Permissions is the number of single permissions of the reserved roles; the token has each.
	Permissions int `json:"permissions"`
}

// prove waits until the Secret holds a token of the live account that has every permission: API servers cache roles for a moment.
func (a *Authorizer) prove(ctx context.Context, c credential, limit time.Duration) (Proof, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := trial{credential: c, authorizer: a, open: c.grants}
	err := wait.PollUntilContextCancel(bounded, pollInterval, true, t.succeeds)
	switch {
	case err == nil:
		return Proof{Secret: c.String(), User: c.user(), Permissions: len(c.grants)}, nil
	case ctx.Err() != nil:
		return Proof{}, fmt.Errorf("prove the token of Secret %s: %w", c, context.Cause(ctx))
	case bounded.Err() == nil:
		return Proof{}, fmt.Errorf("prove the token of Secret %s: %w", c, err)
	case t.client == nil:
		return Proof{}, fmt.Errorf("%w: %s: %w. kube-controller-manager fills it: check that it runs, its log, and its flag "+
			"--service-account-private-key-file; on a managed cluster ask the provider. Then authorize again", ErrTokenNotFilled, c, t.last)
	}
	return Proof{}, fmt.Errorf("%w: Secret %s: %w", ErrTokenUnproved, c, t.last)
}

type trial struct {
	credential
	authorizer *Authorizer
	// client authenticates with the token and with nothing else; nil until the Secret holds a token.
	client kubernetes.Interface
	// open are the permissions that the API server has not confirmed yet.
	open []permission
	// last is the error of the latest round.
	last error
}

// succeeds runs one round. It repeats after every error, except if the caller may not read the Secret.
func (t *trial) succeeds(ctx context.Context) (bool, error) {
	err := t.round(ctx)
	if ctx.Err() == nil || t.last == nil { // an error at the end of the wait hides the cause
		t.last = err
	}
	if t.client == nil && apierrors.IsForbidden(err) {
		return false, err
	}
	return err == nil, nil
}

func (t *trial) round(ctx context.Context) error {
	if err := t.connect(ctx); err != nil {
		return err
	}
	name, err := client.UserName(ctx, t.client)
	if err != nil {
		return fmt.Errorf("authenticate with it: %w", err)
	}
	if name != t.user() {
		return fmt.Errorf("it authenticates as %q, not as %q", name, t.user())
	}
	open, err := missing(ctx, t.client, t.open)
	if err != nil {
		return err
	}
	if t.open = open; len(open) > 0 {
		return fmt.Errorf("missing permissions: %s; check whether another authorizer of the API server denies them, and the "+
			"role and its binding with status", join(open))
	}
	return nil
}

// connect makes the client once the Secret holds a token.
func (t *trial) connect(ctx context.Context) error {
	if t.client != nil {
		return nil
	}
	token, problem, err := t.authorizer.cluster.Token(ctx, t.resource, t.secret)
	if err != nil {
		return err
	}
	if token == "" {
		return errors.New(problem)
	}
	t.client, err = t.authorizer.connectBy(token)
	return err
}

// connectBy makes a client that authenticates with the token, and with nothing else.
func (a *Authorizer) connectBy(token string) (kubernetes.Interface, error) {
	config := rest.AnonymousClientConfig(a.cluster.Config)
	config.BearerToken = token
	return a.connect(config)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package facts looks up in the live cluster what a decision rests on and a request does not tell.
package facts

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Cluster answers lookups by uncached reads: a cache could still show what is gone, or not yet show what is back. It is safe
// for concurrent use.
type Cluster struct {
	// Client is required.
	Client kubernetes.Interface
	// Metadata reads objects of any kind without their content. Only the lookup Live needs it.
	Metadata metadata.Interface
	// Config says which CA the guard itself verifies the API server with. nil means that there is none.
	Config *rest.Config
	// Set tells which Secrets that a ServiceAccount lists are token Secrets of a reservation. nil means none.
	Set *reserved.Set
	// Namespace holds the ConfigMap CredentialsName. Empty means that no such ConfigMap exists.
	Namespace string
}

// Holds reports whether the fact holds. An error says that it could not be found out; the guard's ServiceAccount needs the
// verb get on what is looked up.
func (c Cluster) Holds(ctx context.Context, lookup policy.Lookup) (bool, error) {
	switch lookup.Subject {
	case policy.AccountGone:
		return c.accountGone(ctx, lookup)
	case policy.AccountIs:
		return c.accountIs(ctx, lookup)
	case policy.ClusterCA:
		return c.IsClusterCA(ctx, []byte(lookup.CA))
	case policy.OnlyToken:
		return c.onlyToken(ctx, lookup)
	case policy.SecretGone:
		return c.secretGone(ctx, lookup)
	case policy.NamespaceGoing:
		return c.namespaceGoing(ctx, lookup)
	case policy.Live:
		return c.live(ctx, lookup)
	default:
		return false, fmt.Errorf("look up %q: no such subject", lookup.Subject)
	}
}

func (c Cluster) accountGone(ctx context.Context, lookup policy.Lookup) (bool, error) {
	account, err := c.account(ctx, lookup.Namespace, lookup.Name)
	if err != nil {
		return false, err
	}
	return account == nil || lookup.UID != "" && string(account.UID) != lookup.UID, nil
}

func (c Cluster) accountIs(ctx context.Context, lookup policy.Lookup) (bool, error) {
	account, err := c.account(ctx, lookup.Namespace, lookup.Name)
	if err != nil {
		return false, err
	}
	return account != nil && lookup.UID != "" && string(account.UID) == lookup.UID, nil
}

// account returns nil if the ServiceAccount is absent.
func (c Cluster) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	account, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the serviceaccount of a token: %w", err)
	}
	return account, nil
}

// secretGone reads the Secret's metadata and throws it away: the guard keeps no Secret in memory.
func (c Cluster) secretGone(ctx context.Context, lookup policy.Lookup) (bool, error) {
	_, err := c.Client.CoreV1().Secrets(lookup.Namespace).Get(ctx, lookup.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up a secret that a serviceaccount lists: %w", err)
	}
	return false, nil
}

func (c Cluster) namespaceGoing(ctx context.Context, lookup policy.Lookup) (bool, error) {
	namespace, err := c.Client.CoreV1().Namespaces().Get(ctx, lookup.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up whether a namespace is being deleted: %w", err)
	}
	return namespace.DeletionTimestamp != nil, nil
}

func (c Cluster) live(ctx context.Context, lookup policy.Lookup) (bool, error) {
	object, err := c.Metadata.Resource(lookup.GVR).Namespace(lookup.Namespace).Get(ctx, lookup.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return lookup.UID == "", nil
	}
	if err != nil {
		return false, fmt.Errorf("look up the live object of a write: %w", err)
	}
	return lookup.UID != "" && string(object.UID) == lookup.UID, nil
}

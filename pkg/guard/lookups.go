// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"

	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// lookups answers the lookups of decisions by uncached reads. It is safe for concurrent use.
type lookups struct {
	reader lookup.Reader
	// metadata reads objects of any kind without their content. Only the lookup Live needs it.
	metadata metadata.Interface
	// set tells which Secrets that a ServiceAccount lists are token Secrets of a reservation.
	set *reserved.Set
}

// Holds reports whether what the lookup asks for is so. The guard's ServiceAccount needs the verb get on what is looked up.
func (l lookups) Holds(ctx context.Context, asked policy.Lookup) (bool, error) {
	switch asked.Subject {
	case policy.AccountGone:
		return l.accountGone(ctx, asked)
	case policy.AccountIs:
		return l.accountIs(ctx, asked)
	case policy.ClusterCA:
		return l.reader.IsClusterCA(ctx, []byte(asked.CA))
	case policy.OnlyToken:
		return l.onlyToken(ctx, asked)
	case policy.SecretGone:
		return l.secretGone(ctx, asked)
	case policy.NamespaceGoing:
		return l.namespaceGoing(ctx, asked)
	case policy.NotRetired:
		retirement, err := l.reader.Retirement(ctx, asked.Name)
		return err == nil && retirement == nil, err
	case policy.Live:
		return l.live(ctx, asked)
	default:
		return false, fmt.Errorf("look up %q: no such subject", asked.Subject)
	}
}

func (l lookups) accountGone(ctx context.Context, asked policy.Lookup) (bool, error) {
	account, err := l.account(ctx, asked.Namespace, asked.Name)
	return err == nil && (account == nil || asked.UID != "" && string(account.UID) != asked.UID), err
}

func (l lookups) accountIs(ctx context.Context, asked policy.Lookup) (bool, error) {
	account, err := l.account(ctx, asked.Namespace, asked.Name)
	return account != nil && asked.UID != "" && string(account.UID) == asked.UID, err
}

// account returns nil if the ServiceAccount is absent.
func (l lookups) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	account, err := client.Find(ctx, l.reader.Client.CoreV1().ServiceAccounts(namespace), name)
	if err != nil {
		return nil, fmt.Errorf("look up the serviceaccount of a token: %w", err)
	}
	return account, nil
}

// secretGone drops what it reads: the guard keeps no Secret in memory.
func (l lookups) secretGone(ctx context.Context, asked policy.Lookup) (bool, error) {
	secret, err := client.Find(ctx, l.reader.Client.CoreV1().Secrets(asked.Namespace), asked.Name)
	if err != nil {
		return false, fmt.Errorf("look up a secret that a serviceaccount lists: %w", err)
	}
	return secret == nil, nil
}

func (l lookups) namespaceGoing(ctx context.Context, asked policy.Lookup) (bool, error) {
	namespace, err := client.Find(ctx, l.reader.Client.CoreV1().Namespaces(), asked.Name)
	if err != nil {
		return false, fmt.Errorf("look up whether a namespace is being deleted: %w", err)
	}
	return namespace == nil || namespace.DeletionTimestamp != nil, nil
}

func (l lookups) live(ctx context.Context, asked policy.Lookup) (bool, error) {
	object, err := l.metadata.Resource(asked.GVR).Namespace(asked.Namespace).Get(ctx, asked.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return asked.UID == "", nil
	}
	if err != nil {
		return false, fmt.Errorf("look up the live object of a write: %w", err)
	}
	return asked.UID != "" && string(object.UID) == asked.UID, nil
}

// onlyToken trusts what `authorize` noted for the live account. Where it noted nothing, the account's own list of Secrets
// counts: before Kubernetes 1.24 it names each token Secret.
func (l lookups) onlyToken(ctx context.Context, asked policy.Lookup) (bool, error) {
	account, err := l.account(ctx, asked.Namespace, asked.Account)
	if err != nil {
		return false, err
	}
	if account == nil {
		return true, nil // no token of it is valid
	}
	credential, err := l.reader.Credential(ctx, asked.Namespace, asked.Account)
	if err != nil {
		return false, err
	}
	if credential.AccountUID == string(account.UID) {
		return credential.Secret == asked.Name, nil
	}
	return !l.listsAnother(account, asked.Name), nil
}

// listsAnother reports whether the account lists a token Secret of its reservation other than name.
func (l lookups) listsAnother(account *corev1.ServiceAccount, name string) bool {
	for _, reference := range account.Secrets {
		id := reserved.Identity{Namespace: account.Namespace, Name: reference.Name}
		resource := l.set.Find(corev1.SchemeGroupVersion.WithResource("secrets"), id)
		if reference.Name != name && resource != nil && resource.Account == account.Name {
			return true
		}
	}
	return false
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// olderSecrets are the names of token Secrets under a reserved prefix, other than the manifest's own.
type olderSecrets struct {
	// usable hold a token of the live ServiceAccount, or are about to; the filled ones come first.
	usable []string
	// useless are of another account, or of an earlier one of the same name, or are disabled.
	useless []string
	// secret is the first usable one; nil where there is none.
	secret *corev1.Secret
	// unread is the one that an earlier run left as in use, where the caller may neither list nor read it. It counts where
	// none is usable.
	unread string
}

// first returns the name of the Secret to use; "" where there is none.
func (o olderSecrets) first() string {
	if len(o.usable) == 0 {
		return o.unread
	}
	return o.usable[0]
}

// isUnread says that the Secret to use may not be read, so that nothing is known of it but its name.
func (o olderSecrets) isUnread() bool { return len(o.usable) == 0 && o.unread != "" }

// olderTokenSecrets finds the older Secrets of an entry. An entry that is no token Secret, or has no prefix, has none.
func (a *Authorizer) olderTokenSecrets(ctx context.Context, entry *reserved.Resource) (olderSecrets, error) {
	if !entry.IsTokenSecret() || entry.NamePrefix == "" {
		return olderSecrets{}, nil
	}
	account, err := a.account(ctx, entry)
	if err != nil {
		return olderSecrets{}, err
	}
	seen, err := a.tokenSecrets(ctx, entry, account)
	if err != nil {
		return olderSecrets{}, err
	}
	older := sortOlder(entry, account, seen.secrets)
	older.unread = seen.unread
	return older, nil
}

func sortOlder(entry *reserved.Resource, account *corev1.ServiceAccount, secrets []corev1.Secret) olderSecrets {
	slices.SortFunc(secrets, func(a, b corev1.Secret) int {
		return cmp.Or(cmp.Compare(emptiness(a), emptiness(b)), strings.Compare(a.Name, b.Name))
	})
	var older olderSecrets
	for i := range secrets {
		secret := &secrets[i]
		switch {
		case !strings.HasPrefix(secret.Name, entry.NamePrefix) || secret.Name == entry.Name:
		case isUsable(entry, account, secret):
			older.usable = append(older.usable, secret.Name)
			older.secret = cmp.Or(older.secret, secret)
		default:
			older.useless = append(older.useless, secret.Name)
		}
	}
	return older
}

func emptiness(secret corev1.Secret) int {
	if len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return 0
	}
	return 1
}

// invalidSinceLabel is what kube-controller-manager's legacy token cleaner disables a token by: the constant
// InvalidSinceLabelKey of k8s.io/kubernetes/pkg/serviceaccount, which no library exports.
const invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"

// isUsable says that the Secret holds a token of the live account, or that kube-controller-manager will fill it with one.
func isUsable(entry *reserved.Resource, account *corev1.ServiceAccount, secret *corev1.Secret) bool {
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	_, isDisabled := secret.Labels[invalidSinceLabel]
	return account != nil && !isDisabled && secret.DeletionTimestamp == nil &&
		secret.Type == corev1.SecretTypeServiceAccountToken &&
		secret.Annotations[corev1.ServiceAccountNameKey] == entry.Account &&
		(uid == "" || types.UID(uid) == account.UID)
}

// account returns the live ServiceAccount that a token Secret is for; nil where it is absent.
func (a *Authorizer) account(ctx context.Context, entry *reserved.Resource) (*corev1.ServiceAccount, error) {
	account, err := a.cluster.Client.CoreV1().ServiceAccounts(entry.Namespace).Get(ctx, entry.Account, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read serviceaccount %s/%s: %w", entry.Namespace, entry.Account, err)
	}
	return account, nil
}

// seenSecrets are the token Secrets that the caller may see.
type seenSecrets struct {
	secrets []corev1.Secret
	// unread is the name of one that is known to be in use, and may not be read; "" where there is none.
	unread string
}

// tokenSecrets lists the token Secrets of the entry's namespace. Where that is forbidden, it reads those that the account
// refers to (before Kubernetes 1.24 each token Secret was), and the one that an earlier run left as in use.
func (a *Authorizer) tokenSecrets(
	ctx context.Context, entry *reserved.Resource, account *corev1.ServiceAccount,
) (seenSecrets, error) {
	secrets, err := a.cluster.Client.CoreV1().Secrets(entry.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String(),
	})
	switch {
	case err == nil:
		return seenSecrets{secrets: secrets.Items}, nil
	case !apierrors.IsForbidden(err):
		return seenSecrets{}, fmt.Errorf("list token secrets in namespace %s: %w", entry.Namespace, err)
	case account == nil:
		return seenSecrets{}, nil
	}
	left, err := a.leftInUse(ctx, entry, account)
	if err != nil {
		return seenSecrets{}, err
	}
	names := []string{left}
	for _, reference := range account.Secrets {
		names = append(names, reference.Name)
	}
	return a.readSecrets(ctx, entry, names)
}

// readSecrets reads those of the names that are under the entry's prefix. The first may be the one that is left as in use.
func (a *Authorizer) readSecrets(ctx context.Context, entry *reserved.Resource, names []string) (seenSecrets, error) {
	var seen seenSecrets
	for i, name := range names {
		if !strings.HasPrefix(name, entry.NamePrefix) || slices.Contains(names[:i], name) {
			continue
		}
		secret, err := a.cluster.Client.CoreV1().Secrets(entry.Namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsForbidden(err) && i == 0:
			seen.unread = name
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err): // it cannot be used
		case err != nil:
			return seenSecrets{}, fmt.Errorf("read secret %s/%s: %w", entry.Namespace, name, err)
		default:
			seen.secrets = append(seen.secrets, *secret)
		}
	}
	return seen, nil
}

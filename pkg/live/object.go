// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Object is what the cluster holds of a reserved resource with a manifest.
type Object struct {
	Resource *reserved.Resource
	// Live is the object with the manifest's name; nil if it is absent.
	Live *unstructured.Unstructured
	// Drift holds the sorted paths in which Live differs from the manifest, or a token Secret from what its controller writes.
	Drift []string
	// Older are the token Secrets that can replace an absent Live.
	Older Older
}

// InUse returns the name of Live, or of the older token Secret that is used instead; "" if there is neither.
func (o Object) InUse() string {
	if o.Live != nil {
		return o.Live.GetName()
	}
	return o.Older.InUse()
}

// String names the object in use, or the manifest's if there is none: "clusterroles.rbac.authorization.k8s.io/some-role".
func (o Object) String() string {
	return o.Resource.Reference(o.Resource.Namespace, cmp.Or(o.InUse(), o.Resource.Name)).String()
}

// Find reads the object of a resource with a manifest. It does not compare the data of token Secrets.
func (c Cluster) Find(ctx context.Context, resource *reserved.Resource) (Object, error) {
	o := Object{Resource: resource}
	var err error
	if o.Live, err = c.Get(ctx, resource, resource.Name); err != nil {
		return o, err
	}
	if o.Live != nil {
		o.Drift, err = Drift(resource, o.Live)
	} else {
		o.Older, err = c.older(ctx, resource)
	}
	return o, err
}

// Compare is Find, and compares the data of the token Secret in use.
func (c Cluster) Compare(ctx context.Context, resource *reserved.Resource) (Object, error) {
	o, err := c.Find(ctx, resource)
	if err != nil || !resource.IsTokenSecret() {
		return o, err
	}
	secret := o.Older.secret
	if o.Live != nil {
		secret = &corev1.Secret{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Live.Object, secret); err != nil {
			return o, fmt.Errorf("read %s: %w", o, err)
		}
	}
	paths, err := c.DataDrift(ctx, secret)
	o.Drift = append(o.Drift, paths...)
	return o, err
}

// Drift returns the sorted paths in which an object differs from the manifest.
func Drift(resource *reserved.Resource, live *unstructured.Unstructured) ([]string, error) {
	data, err := live.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", resource, err)
	}
	value, err := rawjson.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("compare %s with its manifest: %w", resource, err)
	}
	paths := policy.Drift(resource, value)
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// Older names the token Secrets under a reserved prefix other than the manifest's own.
type Older struct {
	// Usable hold a token of the live ServiceAccount, or kube-controller-manager will fill them; the filled ones come first.
	Usable []string
	// Useless are disabled or being deleted, or belong to another or an earlier ServiceAccount.
	Useless []string
	// unread is the one that an earlier authorize noted as in use, if the caller may neither list nor read it.
	unread string
	// secret is the first usable one; nil if there is none.
	secret *corev1.Secret
}

// InUse returns the name of the Secret to use; "" if there is none.
func (o Older) InUse() string {
	if len(o.Usable) == 0 {
		return o.unread
	}
	return o.Usable[0]
}

// IsUnread reports whether the caller may not read the Secret to use.
func (o Older) IsUnread() bool { return len(o.Usable) == 0 && o.unread != "" }

// older finds the older Secrets of a token Secret with a prefix; every other resource has none.
func (c Cluster) older(ctx context.Context, resource *reserved.Resource) (Older, error) {
	if !resource.IsTokenSecret() || resource.NamePrefix == "" {
		return Older{}, nil
	}
	account, err := c.Account(ctx, resource)
	if err != nil {
		return Older{}, err
	}
	secrets, unread, err := c.tokenSecrets(ctx, resource, account)
	if err != nil {
		return Older{}, err
	}
	older := sortOlder(resource, account, secrets)
	older.unread = unread
	return older, nil
}

func sortOlder(resource *reserved.Resource, account *corev1.ServiceAccount, secrets []corev1.Secret) Older {
	slices.SortFunc(secrets, func(a, b corev1.Secret) int {
		return cmp.Or(cmp.Compare(emptiness(a), emptiness(b)), strings.Compare(a.Name, b.Name))
	})
	var older Older
	for i := range secrets {
		secret := &secrets[i]
		switch {
		case !strings.HasPrefix(secret.Name, resource.NamePrefix) || secret.Name == resource.Name:
		case isUsable(resource, account, secret):
			older.Usable = append(older.Usable, secret.Name)
			older.secret = cmp.Or(older.secret, secret)
		default:
			older.Useless = append(older.Useless, secret.Name)
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

// invalidSinceLabel is set by kube-controller-manager's legacy token cleaner to disable a token: the constant
// InvalidSinceLabelKey of k8s.io/kubernetes/pkg/serviceaccount, which no library exports.
const invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"

func isUsable(resource *reserved.Resource, account *corev1.ServiceAccount, secret *corev1.Secret) bool {
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	_, isDisabled := secret.Labels[invalidSinceLabel]
	return account != nil && !isDisabled && secret.DeletionTimestamp == nil &&
		secret.Type == corev1.SecretTypeServiceAccountToken &&
		secret.Annotations[corev1.ServiceAccountNameKey] == resource.Account &&
		(uid == "" || types.UID(uid) == account.UID)
}

// tokenSecrets lists the token Secrets of the resource's namespace. A caller who may not list gets those that the account
// refers to (before Kubernetes 1.24: each), and the one that an earlier authorize noted: unread names it if the caller may not read it.
func (c Cluster) tokenSecrets(
	ctx context.Context, resource *reserved.Resource, account *corev1.ServiceAccount,
) (secrets []corev1.Secret, unread string, err error) {
	list, err := c.Client.CoreV1().Secrets(resource.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String(),
	})
	switch {
	case err == nil:
		return list.Items, "", nil
	case !apierrors.IsForbidden(err):
		return nil, "", fmt.Errorf("list token secrets in namespace %s: %w", resource.Namespace, err)
	case account == nil:
		return nil, "", nil
	}
	noted, err := c.notedSecret(ctx, resource, account)
	if err != nil {
		return nil, "", err
	}
	names := []string{noted}
	for _, reference := range account.Secrets {
		names = append(names, reference.Name)
	}
	for i, name := range names {
		if !strings.HasPrefix(name, resource.NamePrefix) || slices.Contains(names[:i], name) {
			continue
		}
		secret, err := c.Client.CoreV1().Secrets(resource.Namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsForbidden(err) && i == 0:
			unread = name
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err): // it cannot be used
		case err != nil:
			return nil, "", fmt.Errorf("read %s: %w", resource.Reference(resource.Namespace, name), err)
		default:
			secrets = append(secrets, *secret)
		}
	}
	return secrets, unread, nil
}

// notedSecret returns the older token Secret that authorize noted for the live account; "" for none, or for no permission to read it.
func (c Cluster) notedSecret(ctx context.Context, resource *reserved.Resource, account *corev1.ServiceAccount) (string, error) {
	credential, err := c.Lookups().Credential(ctx, resource.Namespace, resource.Account)
	if apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil || credential.AccountUID != string(account.UID) || credential.Secret == resource.Name {
		return "", err
	}
	return credential.Secret, nil
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// leaveInUse tells the guard which token Secret is in use, before that Secret is written: the guard denies the creation of a
// second one. It writes nothing where the guard knows already.
func (a *Authorizer) leaveInUse(ctx context.Context, f found) error {
	if !f.entry.IsTokenSecret() || a.cluster.Namespace == "" {
		return nil
	}
	account, err := a.account(ctx, f.entry)
	if err != nil || account == nil {
		return err
	}
	credential := lookup.Credential{
		Namespace: f.entry.Namespace, Account: f.entry.Account, AccountUID: string(account.UID),
		Secret: cmp.Or(f.inUse(), f.entry.Name),
	}
	err = a.leave(ctx, credential)
	if !apierrors.IsNotFound(err) {
		return err
	}
	// There is no namespace of a guard, and so no guard that could deny. One that comes later must know of an older Secret;
	// the reserved one it finds by itself.
	if credential.Secret == f.entry.Name {
		return nil
	}
	return a.leaveInNewNamespace(ctx, credential)
}

// leaveInNewNamespace leaves nothing where the caller may not create namespaces.
func (a *Authorizer) leaveInNewNamespace(ctx context.Context, credential lookup.Credential) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.cluster.Namespace}}
	options := metav1.CreateOptions{FieldManager: guardian.FieldManager}
	_, err := a.cluster.Client.CoreV1().Namespaces().Create(ctx, namespace, options)
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case err != nil && !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create namespace %s: %w", a.cluster.Namespace, err)
	}
	return a.leave(ctx, credential)
}

// leave keeps what the ConfigMap says of other accounts. It fails with a conflict if the ConfigMap changes meanwhile.
func (a *Authorizer) leave(ctx context.Context, credential lookup.Credential) error {
	value, err := json.Marshal(credential)
	if err != nil {
		return fmt.Errorf("encode the token secret in use: %w", err)
	}
	configMaps := a.cluster.Client.CoreV1().ConfigMaps(a.cluster.Namespace)
	wanted := applycorev1.ConfigMap(lookup.CredentialsName, a.cluster.Namespace)
	stored, err := configMaps.Get(ctx, lookup.CredentialsName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		stored = &corev1.ConfigMap{}
	case err != nil:
		return fmt.Errorf("read configmap %s/%s: %w", a.cluster.Namespace, lookup.CredentialsName, err)
	default:
		wanted.WithResourceVersion(stored.ResourceVersion)
	}
	if stored.Data[credential.Key()] == string(value) {
		return nil
	}
	data := maps.Clone(stored.Data)
	wanted.WithData(data).WithData(map[string]string{credential.Key(): string(value)})
	if _, err := configMaps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}); err != nil {
		return fmt.Errorf("apply configmap %s/%s: %w", a.cluster.Namespace, lookup.CredentialsName, err)
	}
	return nil
}

// leftInUse returns the older token Secret that an earlier run left as in use for the account as it lives now; "" where there
// is none.
func (a *Authorizer) leftInUse(ctx context.Context, entry *reserved.Resource, account *corev1.ServiceAccount) (string, error) {
	credential, err := a.lookups().Credential(ctx, entry.Namespace, entry.Account)
	if apierrors.IsForbidden(err) {
		return "", nil // who may not know it can use none
	}
	if err != nil || credential.AccountUID != string(account.UID) || credential.Secret == entry.Name {
		return "", err
	}
	return credential.Secret, nil
}

// leavePermissions returns what leaveInUse takes; nil where it does nothing.
func (a *Authorizer) leavePermissions() []permission {
	hasToken := slices.ContainsFunc(a.set.Resources(), func(r *reserved.Resource) bool { return r.HasManifest() && r.IsTokenSecret() })
	if a.cluster.Namespace == "" || !hasToken {
		return nil
	}
	var all []permission
	for _, verb := range []string{"get", "create", "patch"} {
		all = append(all, permission{
			verb: verb, resource: string(corev1.ResourceConfigMaps), namespace: a.cluster.Namespace, name: lookup.CredentialsName,
		})
	}
	return all
}

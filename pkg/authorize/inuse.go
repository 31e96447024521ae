// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

// noteInUse notes for the guard which token Secret is in use, before that Secret is written: the guard denies the creation of
// a second one. It writes nothing if the note is there.
func (a *Authorizer) noteInUse(ctx context.Context, o live.Object) error {
	if !o.Resource.IsTokenSecret() || a.cluster.Namespace == "" {
		return nil
	}
	account, err := a.cluster.Account(ctx, o.Resource)
	if err != nil || account == nil {
		return err
	}
	credential := lookup.Credential{
		Namespace: o.Resource.Namespace, Account: o.Resource.Account, AccountUID: string(account.UID),
		Secret: cmp.Or(o.InUse(), o.Resource.Name),
	}
	err = a.note(ctx, credential)
	// Without the guard's namespace no guard can deny. A later guard must know of an older Secret, and finds the reserved one itself.
	switch {
	case !apierrors.IsNotFound(err):
		return err
	case credential.Secret == o.Resource.Name:
		return nil
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.cluster.Namespace}}
	_, err = a.cluster.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: guardian.FieldManager})
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case err != nil && !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("create namespace %s: %w", a.cluster.Namespace, err)
	}
	return a.note(ctx, credential)
}

// note keeps the notes of other accounts. It fails with a conflict if another client changes the ConfigMap meanwhile.
func (a *Authorizer) note(ctx context.Context, credential lookup.Credential) error {
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
	wanted.WithData(maps.Clone(stored.Data)).WithData(map[string]string{credential.Key(): string(value)})
	if _, err := configMaps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}); err != nil {
		return fmt.Errorf("apply configmap %s/%s: %w", a.cluster.Namespace, lookup.CredentialsName, err)
	}
	return nil
}

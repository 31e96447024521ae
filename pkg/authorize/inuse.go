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
		Secret: cmp.Or(o.InUse(), o.Resource.Name), Exists: o.InUse() != "",
	}
	err = a.note(ctx, credential)
	// Without the guard's namespace there is no guard that could deny. A later one must know of an older Secret; it finds the
	// reserved one without a note.
	switch {
	case !apierrors.IsNotFound(err):
		return err
	case credential.Secret == o.Resource.Name:
		return nil
	}
	if err := a.createNamespace(ctx); err != nil {
		if apierrors.IsForbidden(err) {
			return nil
		}
		return err
	}
	return a.note(ctx, credential)
}

// createNamespace creates the guard's namespace if it is absent.
func (a *Authorizer) createNamespace(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.cluster.Namespace}}
	_, err := a.cluster.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: guardian.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", a.cluster.Namespace, err)
	}
	return nil
}

// deletedCredential returns the name of the token Secret that was noted as in use for the live account, if it was deleted; "" if
// there is none, or the caller may not read the note.
func (a *Authorizer) deletedCredential(ctx context.Context, o live.Object) (string, error) {
	if !o.Resource.IsTokenSecret() || o.InUse() != "" {
		return "", nil
	}
	account, err := a.cluster.Account(ctx, o.Resource)
	if err != nil || account == nil {
		return "", err
	}
	noted, err := a.lookups().Credential(ctx, o.Resource.Namespace, o.Resource.Account)
	if apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil || !noted.Exists || noted.AccountUID != string(account.UID) {
		return "", err
	}
	return noted.Secret, nil
}

// isNotedAsThere reports whether the note says that the Secret of the credential was there. That stays.
func isNotedAsThere(noted string, credential lookup.Credential) bool {
	var stored lookup.Credential
	credential.Exists = true
	return json.Unmarshal([]byte(noted), &stored) == nil && stored == credential
}

func (a *Authorizer) lookups() lookup.Reader {
	return lookup.Reader{Client: a.cluster.Client, Config: a.cluster.Config, Namespace: a.cluster.Namespace}
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
	if noted := stored.Data[credential.Key()]; noted == string(value) || !credential.Exists && isNotedAsThere(noted, credential) {
		return nil
	}
	wanted.WithData(maps.Clone(stored.Data)).WithData(map[string]string{credential.Key(): string(value)})
	if _, err := configMaps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}); err != nil {
		return fmt.Errorf("apply configmap %s/%s: %w", a.cluster.Namespace, lookup.CredentialsName, err)
	}
	return nil
}

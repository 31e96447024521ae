// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// CredentialsName is the name of the ConfigMap in which `apigw-guardian authorize` leaves which token Secret is in use for each
// reserved ServiceAccount, one key each. The guard may not list Secrets, so it cannot find out by itself.
const CredentialsName = "apigw-guardian-credentials"

// Credential says which token Secret is in use for a ServiceAccount.
type Credential struct {
	Namespace string `json:"namespace"`
	Account   string `json:"account"`
	// AccountUID identifies the ServiceAccount: of one that was deleted and created again, no token is valid.
	AccountUID string `json:"accountUID"`
	// Secret is the name of the token Secret.
	Secret string `json:"secret"`
}

// Key is the key of the credential in the ConfigMap. A namespace has no dot in its name, so no two accounts share a key.
func (c Credential) Key() string { return c.Namespace + "." + c.Account }

// errBadCredential says that a ConfigMap holds something that `authorize` does not write.
var errBadCredential = errors.New("not a credential of this account")

// Credential returns what `authorize` has left for a ServiceAccount; the zero Credential if there is nothing.
func (c Cluster) Credential(ctx context.Context, namespace, account string) (Credential, error) {
	if c.Namespace == "" {
		return Credential{}, nil
	}
	stored, err := c.Client.CoreV1().ConfigMaps(c.Namespace).Get(ctx, CredentialsName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Credential{}, nil
	}
	if err != nil {
		return Credential{}, fmt.Errorf("look up the token secret in use: %w", err)
	}
	return readCredential(stored, Credential{Namespace: namespace, Account: account}.Key())
}

func readCredential(stored *corev1.ConfigMap, key string) (Credential, error) {
	text, found := stored.Data[key]
	if !found {
		return Credential{}, nil
	}
	var credential Credential
	if err := json.Unmarshal([]byte(text), &credential); err != nil {
		return Credential{}, fmt.Errorf("read %s of configmap %s/%s: %w", key, stored.Namespace, stored.Name, err)
	}
	if credential.Key() != key || credential.AccountUID == "" || credential.Secret == "" {
		return Credential{}, fmt.Errorf("read %s of configmap %s/%s: %w", key, stored.Namespace, stored.Name, errBadCredential)
	}
	return credential, nil
}

// onlyToken trusts what `authorize` has left for the account as it lives now. Where it has left nothing, the account's own list
// of Secrets counts: before Kubernetes 1.24 it names each token Secret.
func (c Cluster) onlyToken(ctx context.Context, lookup policy.Lookup) (bool, error) {
	account, err := c.account(ctx, lookup.Namespace, lookup.Account)
	if err != nil {
		return false, err
	}
	if account == nil {
		return true, nil // no token of it is valid
	}
	credential, err := c.Credential(ctx, lookup.Namespace, lookup.Account)
	if err != nil {
		return false, err
	}
	if credential.AccountUID == string(account.UID) {
		return credential.Secret == lookup.Name, nil
	}
	return !c.listsAnother(account, lookup.Name), nil
}

// listsAnother reports whether the account lists a token Secret of its reservation other than name.
func (c Cluster) listsAnother(account *corev1.ServiceAccount, name string) bool {
	if c.Set == nil {
		return false
	}
	for _, reference := range account.Secrets {
		id := reserved.Identity{Namespace: account.Namespace, Name: reference.Name}
		resource := c.Set.Find(corev1.SchemeGroupVersion.WithResource("secrets"), id)
		if reference.Name != name && resource != nil && resource.Account == account.Name {
			return true
		}
	}
	return false
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CredentialsName is the name of the ConfigMap in which `apigw-guardian authorize` notes which token Secret is in use for each
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
	// Exists says that the Secret was there when this was noted. If it is absent later, a user has deleted it.
	Exists bool `json:"exists,omitempty"`
}

// Key is the key of the credential in the ConfigMap. A namespace has no dot in its name, so no two accounts share a key.
func (c Credential) Key() string { return c.Namespace + "." + c.Account }

// errBadCredential means that the ConfigMap holds a value that `authorize` does not write.
var errBadCredential = errors.New("not a credential of this account")

// Credential returns what `authorize` noted for a ServiceAccount, or the zero Credential if it noted nothing.
func (r Reader) Credential(ctx context.Context, namespace, account string) (Credential, error) {
	if r.Namespace == "" {
		return Credential{}, nil
	}
	stored, err := r.Client.CoreV1().ConfigMaps(r.Namespace).Get(ctx, CredentialsName, metav1.GetOptions{})
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

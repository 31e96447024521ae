// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package lookup reads what a token Secret is compared with: the CA of the cluster, and the note of which token Secret is in use; and
// which reservations are retired.
package lookup

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/client"
)

// Reader reads without a cache: a cache could still show what is gone, or not yet show what is back. It is safe for concurrent use.
type Reader struct {
	// Client is required.
	Client kubernetes.Interface
	// Config says which CA this process verifies the API server with. nil means that there is none.
	Config *rest.Config
	// Namespace holds the ConfigMaps CredentialsName and RetirementsName. Empty means that they do not exist.
	Namespace string
}

// rootCAConfigMap is the ConfigMap that kube-controller-manager publishes the cluster's CA in, in every namespace: the
// constant RootCACertConfigMapName of k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher.
const rootCAConfigMap = "kube-root-ca.crt"

// IsClusterCA reports whether ca, in PEM, is the CA of this cluster's API server: the one that kube-controller-manager
// publishes in kube-system, or the one that this process verifies the API server with. Two bundles are equal if they hold the
// same certificates and nothing else. It returns an error if a source cannot be read and the other one does not hold ca.
func (r Reader) IsClusterCA(ctx context.Context, ca []byte) (bool, error) {
	trusted, trustedErr := r.trustedCA()
	if isSameCA(ca, trusted) {
		return true, nil
	}
	published, err := r.publishedCA(ctx)
	switch {
	case err != nil:
		return false, err
	case isSameCA(ca, published):
		return true, nil
	case len(published) == 0 && len(trusted) == 0 && trustedErr == nil:
		return false, errors.New("the cluster publishes no CA, and the configuration of this client has none")
	}
	return false, trustedErr
}

// trustedCA reads the file, if the configuration names one, on each call: the kubelet replaces it when the CA rotates.
func (r Reader) trustedCA() ([]byte, error) {
	switch {
	case r.Config == nil:
		return nil, nil
	case len(r.Config.CAData) > 0:
		return r.Config.CAData, nil
	case r.Config.CAFile == "":
		return nil, nil
	}
	data, err := os.ReadFile(r.Config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the CA of the API server: %w", err)
	}
	return data, nil
}

// publishedCA returns nil if kube-controller-manager publishes no CA.
func (r Reader) publishedCA(ctx context.Context) ([]byte, error) {
	published, err := client.Find(ctx, r.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem), rootCAConfigMap)
	if err != nil {
		return nil, fmt.Errorf("look up the CA of the cluster: %w", err)
	}
	if published == nil {
		return nil, nil
	}
	return []byte(published.Data[corev1.ServiceAccountRootCAKey]), nil
}

// isSameCA returns false if either is empty. Equal bytes are equal whatever they hold: some bundles have comments.
func isSameCA(a, b []byte) bool {
	if len(bytes.TrimSpace(a)) == 0 || len(bytes.TrimSpace(b)) == 0 {
		return false
	}
	if bytes.Equal(a, b) {
		return true
	}
	as, isBundle := certificatesIn(a)
	bs, isOther := certificatesIn(b)
	return isBundle && isOther && slices.Equal(as, bs)
}

// certificatesIn returns the encoded certificates of a bundle, sorted, each once. It returns false for a bundle that holds
// anything but certificates: another program could read there what Go's decoder skips.
func certificatesIn(bundle []byte) ([]string, bool) {
	var certificates []string
	for rest := bytes.TrimSpace(bundle); len(rest) > 0; {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, false
		}
		if read := rest[:len(rest)-len(after)]; withoutSpace(read) != withoutSpace(pem.EncodeToMemory(block)) {
			return nil, false
		}
		certificates = append(certificates, string(block.Bytes))
		rest = bytes.TrimSpace(after)
	}
	slices.Sort(certificates)
	return slices.Compact(certificates), true
}

func withoutSpace(text []byte) string { return strings.Join(strings.Fields(string(text)), "") }

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

// Credential returns what `authorize` noted for a ServiceAccount, or the zero Credential if it noted nothing.
func (r Reader) Credential(ctx context.Context, namespace, account string) (Credential, error) {
	var credential Credential
	if _, err := r.readNote(ctx, CredentialsName, Credential{Namespace: namespace, Account: account}.Key(), &credential); err != nil {
		return Credential{}, fmt.Errorf("look up the token secret in use: %w", err)
	}
	return credential, nil
}

func (c *Credential) isOf(key string) bool {
	return c.Key() == key && c.AccountUID != "" && c.Secret != ""
}

// readNote reads the note under a key of a ConfigMap, and returns false if there is none.
func (r Reader) readNote(ctx context.Context, name, key string, note interface{ isOf(key string) bool }) (found bool, err error) {
	if r.Namespace == "" {
		return false, nil
	}
	stored, err := client.Notes{Client: r.Client, Namespace: r.Namespace, Name: name}.Read(ctx)
	if err != nil || stored == nil {
		return false, err
	}
	text, found := stored.Data[key]
	if !found {
		return false, nil
	}
	if err := json.Unmarshal([]byte(text), note); err != nil {
		return false, fmt.Errorf("read %s of configmap %s/%s: %w", key, r.Namespace, name, err)
	}
	if !note.isOf(key) {
		return false, fmt.Errorf("read %s of configmap %s/%s: not a note for this key", key, r.Namespace, name)
	}
	return true, nil
}

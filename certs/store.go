// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// The keys of the Secret. The current CA has the keys of the Secret's type, where versions without rotation expect it.
const (
	currentCertKey  = corev1.TLSCertKey
	currentKeyKey   = corev1.TLSPrivateKeyKey
	nextCertKey     = "next.crt"
	nextKeyKey      = "next.key"
	previousCertKey = "previous.crt"
)

// maxPrevious limits the certificates that another client can make a replica verify per round. A rotation leaves one.
const maxPrevious = 64

type store struct {
	client    Client
	namespace string
}

// storedSet is the Secret as it was read.
type storedSet struct {
	caSet

	version string // the resourceVersion; "" if there is no Secret
}

// load reads the Secret. If the Secret is unusable, it returns its version and ErrUnusableCA.
func (s store) load(ctx context.Context) (storedSet, error) {
	secret, err := s.client.Secrets(s.namespace).Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return storedSet{}, fmt.Errorf("read the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	found, reason := parse(secret.Data)
	if reason != "" {
		err = unusable(s.namespace, reason)
	}
	return storedSet{caSet: found, version: secret.ResourceVersion}, err
}

// save replaces what was read. It changes nothing, and returns a Conflict, if another client has written since.
func (s store) save(ctx context.Context, read storedSet, set caSet) error {
	data, err := encode(set)
	switch {
	case err != nil:
	case read.version == "":
		err = s.create(ctx, data)
	default:
		err = s.replace(ctx, read.version, data)
	}
	if err != nil {
		return fmt.Errorf("write the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	return nil
}

// create creates the Secret. It creates the namespace only if that is missing, and needs no permission for it otherwise.
func (s store) create(ctx context.Context, data map[string][]byte) error {
	err := s.apply(ctx, data)
	if !apierrors.IsNotFound(err) { // only the namespace can be missing
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	_, err = s.client.Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: guardian.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %q: %w", s.namespace, err)
	}
	return s.apply(ctx, data)
}

// apply creates the Secret by a PATCH, which RBAC can limit to one name; it cannot limit a POST. Every call uses another field
// manager without force. So of two replicas the second gets a Conflict, and reads the CA of the first.
func (s store) apply(ctx context.Context, data map[string][]byte) error {
	data = maps.Clone(data)
	maps.DeleteFunc(data, func(_ string, value []byte) bool { return value == nil })
	secret := corev1apply.Secret(SecretName, s.namespace).WithType(corev1.SecretTypeTLS).WithData(data)
	manager := guardian.FieldManager + "-" + strings.ToLower(rand.Text())
	_, err := s.client.Secrets(s.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: manager})
	return err
}

// replace replaces the data of the Secret if it still has that version. A nil value becomes null, which removes the key.
func (s store) replace(ctx context.Context, version string, data map[string][]byte) error {
	// These types always marshal.
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": version}, "data": data})
	opts := metav1.PatchOptions{FieldManager: guardian.FieldManager}
	_, err := s.client.Secrets(s.namespace).Patch(ctx, SecretName, types.MergePatchType, patch, opts)
	return err
}

// unusable returns the error for a Secret that the guard cannot use. The reason must not quote key material, as a parser may.
func unusable(namespace, reason string) error {
	return fmt.Errorf("%w in Secret %s/%s: %s: delete it (kubectl -n %s delete secret %s) and restart the guard, which makes a new one",
		ErrUnusableCA, namespace, SecretName, reason, namespace, SecretName)
}

// encode returns the data of the Secret; nil for each key that it must not have.
func encode(s caSet) (map[string][]byte, error) {
	data := map[string][]byte{nextCertKey: nil, nextKeyKey: nil, previousCertKey: encodeBundle(s.previous)}
	for names, p := range map[[2]string]keyPair{{currentCertKey, currentKeyKey}: s.current, {nextCertKey, nextKeyKey}: s.next} {
		if p.certificate == nil {
			continue
		}
		key, err := encodeKey(p.key)
		if err != nil {
			return nil, err
		}
		data[names[0]], data[names[1]] = encodeBundle([]*x509.Certificate{p.certificate}), key
	}
	return data, nil
}

// parse reads the data of the Secret. The reason says why it is unusable; "" if it is usable.
func parse(data map[string][]byte) (s caSet, reason string) {
	if s.current, reason = parseCA(data, currentCertKey, currentKeyKey); reason != "" {
		return caSet{}, reason
	}
	if len(data[nextCertKey])+len(data[nextKeyKey]) > 0 {
		if s.next, reason = parseCA(data, nextCertKey, nextKeyKey); reason != "" {
			return caSet{}, reason
		}
	}
	if len(data[previousCertKey]) > 0 {
		if s.previous, reason = parseCertificates(data[previousCertKey]); reason != "" {
			return caSet{}, previousCertKey + " is not a list of PEM certificates: " + reason
		}
	}
	if len(s.previous) > maxPrevious {
		return caSet{}, fmt.Sprintf("%s holds %d certificates, more than %d", previousCertKey, len(s.previous), maxPrevious)
	}
	return s, ""
}

func parseCA(data map[string][]byte, certKey, keyKey string) (ca keyPair, reason string) {
	for _, key := range []string{certKey, keyKey} {
		if len(data[key]) == 0 {
			return keyPair{}, key + " is missing"
		}
	}
	chain, key, reason := parseKeyPair(certKey, keyKey, data[certKey], data[keyKey])
	switch {
	case reason != "":
		return keyPair{}, reason
	case len(chain) != 1:
		return keyPair{}, fmt.Sprintf("%s holds %d certificates instead of one", certKey, len(chain))
	case !chain[0].BasicConstraintsValid || !chain[0].IsCA:
		return keyPair{}, certKey + " is not the certificate of a CA"
	case chain[0].KeyUsage&x509.KeyUsageCertSign == 0:
		return keyPair{}, certKey + " may not sign certificates (its key usage lacks certSign)"
	}
	return keyPair{certificate: chain[0], key: key}, ""
}

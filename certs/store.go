// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/util/cert"
)

// fieldManager is the guard's name in managedFields.
const fieldManager = "apigw-guardian"

// The keys of the Secret. The signer has those of its type, so that a version of the guard that knows of no rotation finds
// it there, and one that does finds what such a version has left.
const (
	signerCertKey   = corev1.TLSCertKey
	signerKeyKey    = corev1.TLSPrivateKeyKey
	upcomingCertKey = "next.crt"
	upcomingKeyKey  = "next.key"
	previousCertKey = "previous.crt"
)

// maxPrevious bounds what another client can make a replica verify at each look. A rotation leaves one; two at a time are many.
const maxPrevious = 64

// store keeps the authorities in the Secret.
type store struct {
	client    Client
	namespace string
}

// record is the Secret as it was read; without a version there was none.
type record struct {
	authorities
	version string
}

// load reads the authorities out of the Secret. A Secret of no use is an error too, and the record then has its version.
func (s store) load(ctx context.Context) (record, error) {
	secret, err := s.client.Secrets(s.namespace).Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return record{}, fmt.Errorf("read the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	found, reason := parse(secret.Data)
	if reason != "" {
		return record{version: secret.ResourceVersion}, unusable(s.namespace, reason)
	}
	return record{authorities: found, version: secret.ResourceVersion}, nil
}

// save writes the authorities over what was read. It fails with a conflict, and changes nothing, where somebody has written
// since. A Secret that did not exist comes first and the namespace only when the API server asks for it, so that a guard in
// an existing namespace, the usual case, needs no right to create namespaces.
func (s store) save(ctx context.Context, over record, next authorities) error {
	data, err := encode(next)
	if err != nil {
		return err
	}
	if over.version != "" {
		return s.replace(ctx, over.version, data)
	}
	err = s.createSecret(ctx, data)
	if apierrors.IsNotFound(err) { // the only thing that a create can miss is the namespace
		if err := s.createNamespace(ctx); err != nil {
			return err
		}
		err = s.createSecret(ctx, data)
	}
	if err != nil {
		return fmt.Errorf("create the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	return nil
}

// createSecret creates by a PATCH, which RBAC can limit to this one name; it cannot limit a POST. Each attempt is a field
// manager of its own and uses no force, so that whoever comes second is refused and takes the first one's authority.
func (s store) createSecret(ctx context.Context, data map[string][]byte) error {
	secret := corev1apply.Secret(SecretName, s.namespace).WithType(corev1.SecretTypeTLS).WithData(data)
	manager := fieldManager + "-" + strings.ToLower(rand.Text())
	_, err := s.client.Secrets(s.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: manager})
	return err
}

// replace is a PATCH too, for the same reason. The resourceVersion in it makes it fail where the Secret has changed since.
func (s store) replace(ctx context.Context, version string, data map[string][]byte) error {
	values := map[string]any{}
	for _, key := range []string{signerCertKey, signerKeyKey, upcomingCertKey, upcomingKeyKey, previousCertKey} {
		values[key] = nil // null removes it
		if value, found := data[key]; found {
			values[key] = value
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": version}, "data": values})
	if err != nil {
		return fmt.Errorf("write the CA Secret as JSON: %w", err)
	}
	_, err = s.client.Secrets(s.namespace).Patch(ctx, SecretName, types.MergePatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return fmt.Errorf("write the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	return nil
}

// createNamespace is content if another replica was quicker.
func (s store) createNamespace(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	_, err := s.client.Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %q: %w", s.namespace, err)
	}
	return nil
}

// unusable is the error for a Secret that the guard cannot serve with. The reason is
// text of this package: an error of a parser might quote what it was given.
func unusable(namespace, reason string) error {
	return fmt.Errorf("%w in Secret %s/%s: %s: delete it (kubectl -n %s delete secret %s) and restart the guard, which makes a new one",
		ErrUnusableCA, namespace, SecretName, reason, namespace, SecretName)
}

// encode is the Secret's data.
func encode(a authorities) (map[string][]byte, error) {
	data := map[string][]byte{}
	for _, part := range []struct {
		pair
		certKey, keyKey string
	}{{a.signer, signerCertKey, signerKeyKey}, {a.upcoming, upcomingCertKey, upcomingKeyKey}} {
		if part.certificate == nil {
			continue
		}
		key, err := encodeKey(part.key)
		if err != nil {
			return nil, fmt.Errorf("encode the CA's key: %w", err)
		}
		data[part.certKey], data[part.keyKey] = encodeBundle([]*x509.Certificate{part.certificate}), key
	}
	if len(a.previous) > 0 {
		data[previousCertKey] = encodeBundle(a.previous)
	}
	return data, nil
}

// parse reads the authorities from a Secret's data, or says why it cannot.
func parse(data map[string][]byte) (a authorities, reason string) {
	if a.signer, reason = parsePair(data, signerCertKey, signerKeyKey); reason != "" {
		return authorities{}, reason
	}
	if len(data[upcomingCertKey])+len(data[upcomingKeyKey]) > 0 {
		if a.upcoming, reason = parsePair(data, upcomingCertKey, upcomingKeyKey); reason != "" {
			return authorities{}, reason
		}
	}
	if len(data[previousCertKey]) > 0 {
		previous, err := cert.ParseCertsPEM(data[previousCertKey])
		if err != nil {
			return authorities{}, previousCertKey + " is not a list of PEM certificates"
		}
		if len(previous) > maxPrevious {
			return authorities{}, fmt.Sprintf("%s holds %d certificates, more than %d", previousCertKey, len(previous), maxPrevious)
		}
		a.previous = previous
	}
	return a, ""
}

// parsePair reads one authority.
func parsePair(data map[string][]byte, certKey, keyKey string) (p pair, reason string) {
	for _, key := range []string{certKey, keyKey} {
		if len(data[key]) == 0 {
			return pair{}, key + " is missing"
		}
	}
	chain, key, reason := parseKeyPair(certKey, keyKey, data[certKey], data[keyKey])
	switch {
	case reason != "":
		return pair{}, reason
	case len(chain) != 1:
		return pair{}, fmt.Sprintf("%s holds %d certificates instead of one", certKey, len(chain))
	case !chain[0].BasicConstraintsValid || !chain[0].IsCA:
		return pair{}, certKey + " is not the certificate of a CA"
	case chain[0].KeyUsage&x509.KeyUsageCertSign == 0:
		return pair{}, certKey + " may not sign certificates (its key usage lacks certSign)"
	}
	return pair{certificate: chain[0], key: key}, ""
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// fieldManager is the guard's name in managedFields.
const fieldManager = "apigw-guardian"

// store keeps the authority in the Secret.
type store struct {
	client    Client
	namespace string
}

// loadOrCreate reads the authority, and makes one if there is none.
func (s store) loadOrCreate(ctx context.Context, opts Options) (pair, error) {
	ca, err := s.load(ctx, opts.Now())
	if !apierrors.IsNotFound(err) {
		return ca, err
	}
	err = s.create(ctx, opts)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return pair{}, fmt.Errorf("create the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	// Read it back even after creating it: what serves is what every replica reads.
	return s.load(ctx, opts.Now())
}

// load reads the authority out of the Secret.
func (s store) load(ctx context.Context, now time.Time) (pair, error) {
	secret, err := s.client.Secrets(s.namespace).Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return pair{}, fmt.Errorf("read the CA Secret %s/%s: %w", s.namespace, SecretName, err)
	}
	ca, reason := parse(secret.Data, now)
	if reason != "" {
		return pair{}, unusable(s.namespace, reason)
	}
	return ca, nil
}

// create stores a new authority. The Secret comes first and the namespace only when
// the API server asks for it, so that a guard in an existing namespace, the usual
// case, needs no right to create namespaces.
func (s store) create(ctx context.Context, opts Options) error {
	data, err := newCA(opts)
	if err != nil {
		return err
	}
	err = s.createSecret(ctx, data)
	if !apierrors.IsNotFound(err) { // the only thing that a create can miss is the namespace
		return err
	}
	if err := s.createNamespace(ctx); err != nil {
		return err
	}
	return s.createSecret(ctx, data)
}

// createSecret creates by a PATCH, which RBAC can limit to this one name; it cannot limit a POST. Each attempt is a field
// manager of its own and uses no force, so that whoever comes second is refused and takes the first one's authority.
func (s store) createSecret(ctx context.Context, data map[string][]byte) error {
	secret := corev1apply.Secret(SecretName, s.namespace).WithType(corev1.SecretTypeTLS).WithData(data)
	manager := fieldManager + "-" + strings.ToLower(rand.Text())
	_, err := s.client.Secrets(s.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: manager})
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
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

// parse reads an authority from a Secret's data, or says why it cannot.
func parse(data map[string][]byte, now time.Time) (ca pair, reason string) {
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(data[key]) == 0 {
			return pair{}, key + " is missing"
		}
	}
	chain, err := certutil.ParseCertsPEM(data[corev1.TLSCertKey])
	if err != nil {
		return pair{}, corev1.TLSCertKey + " is not a PEM certificate"
	}
	if len(chain) != 1 {
		return pair{}, fmt.Sprintf("%s holds %d certificates instead of one", corev1.TLSCertKey, len(chain))
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return pair{}, corev1.TLSPrivateKeyKey + " is not a PEM private key"
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return pair{}, corev1.TLSPrivateKeyKey + " is a key that cannot sign"
	}
	ca = pair{certificate: chain[0], key: key}
	return ca, ca.defect(now)
}

// defect says why p cannot be an authority, or nothing.
func (p pair) defect(now time.Time) string {
	public, ok := p.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(p.certificate.PublicKey):
		return "tls.key is not the key of tls.crt"
	case !p.certificate.BasicConstraintsValid || !p.certificate.IsCA:
		return "tls.crt is not the certificate of a CA"
	case p.certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return "tls.crt may not sign certificates (its key usage lacks certSign)"
	}
	return p.untimely(now)
}

// untimely says why p is not valid at this moment, or nothing.
func (p pair) untimely(now time.Time) string {
	switch {
	case now.After(p.certificate.NotAfter):
		return "tls.crt has expired on " + p.certificate.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(p.certificate.NotBefore):
		return "tls.crt is not valid before " + p.certificate.NotBefore.UTC().Format(time.RFC3339) +
			" (look at this node's clock first)"
	}
	return ""
}

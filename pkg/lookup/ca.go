// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rootCAConfigMap is the ConfigMap that kube-controller-manager publishes the cluster's CA in, in every namespace: the
// constant RootCACertConfigMapName of k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher.
const rootCAConfigMap = "kube-root-ca.crt"

// errUnknownCA means that there is no CA to compare with.
var errUnknownCA = errors.New("the cluster publishes no CA, and the configuration of this client has none")

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
		return false, errUnknownCA
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
	published, err := r.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, rootCAConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the CA of the cluster: %w", err)
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

func withoutSpace(text []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, string(text))
}

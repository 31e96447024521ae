// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import corev1 "k8s.io/api/core/v1"

// LastUsedLabel is the label that the API server sets on a token Secret when its token is used. It is LastUsedLabelKey in
// k8s.io/kubernetes/pkg/serviceaccount, which no library exports.
const LastUsedLabel = "kubernetes.io/legacy-token-last-used"

//nolint:gochecknoglobals // constant tables
var (
	tokenSecretFields = [][]string{
		{"data"},
		{"metadata", "annotations", corev1.ServiceAccountUIDKey},
		{"metadata", "labels", LastUsedLabel},
	}
	accountFields = [][]string{{"secrets"}}
)

// SystemFields returns the paths of the fields that only the control plane writes; nil if there are none. The result must not be
// changed.
func (r *Resource) SystemFields() [][]string {
	switch {
	case r.IsTokenSecret():
		return tokenSecretFields
	case r.IsServiceAccount():
		return accountFields
	}
	return nil
}

// IsServiceAccount reports whether the resource is a ServiceAccount.
func (r *Resource) IsServiceAccount() bool { return r.Kind == "ServiceAccount" && r.GVR.Group == "" }

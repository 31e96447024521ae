// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package lookup reads what a token Secret is compared with: the CA of the cluster, and the note of which token Secret is in use; and
// which reservations are retired.
package lookup

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
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

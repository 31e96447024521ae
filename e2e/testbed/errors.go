// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import "errors"

var (
	// ErrMalformedVersion is returned for a Kubernetes version that is not of the form 1.Y.Z or v1.Y.Z.
	ErrMalformedVersion = errors.New("malformed Kubernetes version")

	// ErrUnresolvedVersion is returned for a version that the Go module proxy does not have, or has only in part.
	ErrUnresolvedVersion = errors.New("version does not resolve as a Go module")

	// ErrStopped is returned by methods that need a running component of a cluster that was stopped.
	ErrStopped = errors.New("the cluster is stopped")

	// errPortTaken marks a process that ended because another program had bound its port first.
	errPortTaken = errors.New("port is taken")
)

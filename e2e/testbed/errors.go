// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import "errors"

var (
	// ErrMalformedVersion means that a Kubernetes version has not the form 1.Y.Z or v1.Y.Z.
	ErrMalformedVersion = errors.New("malformed Kubernetes version")

	// ErrUnresolvedVersion means that the Go module proxy does not have a version, or lacks a part of it.
	ErrUnresolvedVersion = errors.New("version does not resolve as a Go module")

	// ErrStopped means that a method needs a component of a stopped cluster.
	ErrStopped = errors.New("the cluster is stopped")

	// errPortTaken means that a process ended because another program had taken its port.
	errPortTaken = errors.New("port is taken")
)

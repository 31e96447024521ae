// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package testbed runs a real Kubernetes control plane on one machine, for tests and demonstrations: etcd,
// kube-apiserver and kube-controller-manager on loopback ports, without root, a container or a downloaded binary.
//
// [Builder] builds the programs from their Go modules, once per release, into a cache directory; [Start] runs them as
// a [Cluster] whose processes end with the program that started it, even when that is killed.
package testbed

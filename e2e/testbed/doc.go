// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package testbed runs a real Kubernetes control plane on one machine, for tests and demonstrations. It runs etcd, kube-apiserver
// and kube-controller-manager on loopback ports, without root, containers or downloaded binaries.
//
// [Builder] builds the programs from their Go modules into a cache directory, once per release. [Start] runs them as a [Cluster].
// On Linux its processes end with the program that started it, even if it is killed.
package testbed

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package node runs a whole Kubernetes node on one Linux machine, for tests that need real Pods, real Services and a real
// `helm install`: the control plane of package testbed, and kube-scheduler, containerd, kubelet and kube-proxy, in a network
// namespace of their own that no packet leaves. It needs root and the Debian packages that packages.txt lists;
// [Requirements] tells what a machine lacks.
//
// [Start] brings a [Node] up, and [Node.Stop] leaves nothing of it. A program that may be interrupted hands Start a context
// of [os/signal.NotifyContext] and calls Stop as ever. What a killed program left is cleaned up by [Sweep], with which
// every Start begins. Nodes of several programs may run side by side.
package node

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
)

// The tested releases. 1.28 is the first with match conditions of webhooks and with SelfSubjectReview v1.
const (
	oldestRelease = "1.28"
	newestRelease = "1.37"
)

// checkVersion judges what the API server answered when asked for its version.
func checkVersion(git string, err error) Check {
	if err != nil {
		return Check{
			Status: Fail, Message: err.Error(),
			Remedy: "Check the kubeconfig and its context, and that this machine reaches the API server (kubectl version).",
		}
	}
	running, err := version.ParseGeneric(git)
	if err != nil {
		return Check{
			Status: Unknown, Message: fmt.Sprintf("cannot parse the version %q of the API server", git),
			Remedy: fmt.Sprintf("Make sure that it is between %s and %s.", oldestRelease, newestRelease),
		}
	}
	release := version.MajorMinor(running.Major(), running.Minor())
	switch {
	case release.LessThan(version.MustParseGeneric(oldestRelease)):
		return Check{
			Status: Fail, Message: fmt.Sprintf("Kubernetes %s is older than %s", git, oldestRelease),
			Remedy: fmt.Sprintf("Upgrade the cluster to %s or later.", oldestRelease),
		}
	case release.GreaterThan(version.MustParseGeneric(newestRelease)):
		return Check{
			Status: Unknown, Message: fmt.Sprintf("Kubernetes %s is newer than %s, the newest tested release", git, newestRelease),
			Remedy: "Look for a newer apigw-guardian, or run verify after the installation.",
		}
	}
	return Check{Status: Pass, Message: fmt.Sprintf("Kubernetes %s is supported", git)}
}

// The signs of a TKE cluster: its version ends like "-tke.4", and its nodes are machines of Tencent Cloud.
const (
	tkeVersionSign  = "tke"
	tkeProviderSign = "qcloud://"
)

// maxNodes limits the list of nodes. Except in mixed clusters, all nodes are of one provider.
const maxNodes = 100

func (a *Authorizer) checkTKE(ctx context.Context, git string) Check {
	if strings.Contains(git, tkeVersionSign) {
		return Check{Status: Pass, Message: fmt.Sprintf("%s is a version of TKE", git)}
	}
	nodes, err := a.cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: maxNodes})
	if err != nil {
		return Check{
			Status: Unknown, Message: fmt.Sprintf("cannot list nodes: %v", err),
			Remedy: "Ignore this: the guard works on any Kubernetes cluster.",
		}
	}
	for _, node := range nodes.Items {
		if strings.HasPrefix(node.Spec.ProviderID, tkeProviderSign) {
			return Check{Status: Pass, Message: fmt.Sprintf("node %s is a machine of Tencent Cloud", node.Name)}
		}
	}
	return Check{Status: Skipped, Message: "no sign of TKE; the guard works on any Kubernetes cluster"}
}

// TKE shows private network access by this Service. It is not an official contract, so its absence proves nothing.
const (
	networkNamespace = metav1.NamespaceDefault
	networkService   = "kubernetes-intranet"
)

// networkRemedy is from the FAQ of Tencent Cloud's "Granting TKE Cluster Permissions to API Gateway".
const networkRemedy = "In the TKE console open the cluster, Basic information, Cluster APIServer information, enable Private " +
	"network access and choose a subnet; then try again. Leave it enabled: without it API Gateway cannot reach the API server."

// CheckPrivateNetwork looks for private network access to a TKE cluster's API server, which API Gateway needs. The status is
// Pass, Fail, or Unknown.
func CheckPrivateNetwork(ctx context.Context, client kubernetes.Interface) Check {
	const name = "Service " + networkNamespace + "/" + networkService
	unknown := func(format string, arguments ...any) Check {
		return Check{
			Status: Unknown, Message: fmt.Sprintf(format, arguments...),
			Remedy: "Make sure that private network access is enabled. " + networkRemedy,
		}
	}
	service, err := client.CoreV1().Services(networkNamespace).Get(ctx, networkService, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return unknown("%s is absent; TKE shows private network access by it", name)
	case err != nil:
		return unknown("cannot read %s: %v", name, err)
	case service.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return Check{Status: Fail, Message: fmt.Sprintf("%s has type %s, not LoadBalancer", name, service.Spec.Type), Remedy: networkRemedy}
	}
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if address := cmp.Or(ingress.IP, ingress.Hostname); address != "" {
			return Check{Status: Pass, Message: fmt.Sprintf("%s has the address %s", name, address)}
		}
	}
	return Check{Status: Fail, Message: name + " has no address", Remedy: networkRemedy}
}

func (a *Authorizer) checkPrivateNetwork(ctx context.Context, mode NetworkMode) Check {
	if mode == NetworkSkip {
		return Check{Status: Skipped, Message: "private network access is not checked"}
	}
	check := CheckPrivateNetwork(ctx, a.cluster.Client)
	if check.Status == Fail && mode == NetworkWarn {
		check.Status = Unknown
	}
	return check
}

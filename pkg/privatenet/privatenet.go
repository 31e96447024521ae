// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package privatenet finds out whether private network access to a TKE cluster's API server is on, without which API
// Gateway cannot reach it.
package privatenet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace and ServiceName are where TKE shows private network access inside the cluster. Public write-ups show it so; it
// is no official contract, and so nothing is concluded from its absence.
const (
	Namespace   = metav1.NamespaceDefault
	ServiceName = "kubernetes-intranet"
)

// Remedy says how to turn private network access on: the FAQ of Tencent Cloud's "Granting TKE Cluster Permissions to API
// Gateway".
const Remedy = "In the TKE console open the cluster, Basic information, Cluster APIServer information, enable Private " +
	"network access and choose a subnet; then try again. Leave it enabled afterwards: without it API Gateway no longer " +
	"reaches the API server."

// Answer is whether private network access is on.
type Answer string

// Answers. There is no guess: what is not known is Unknown.
const (
	Yes     Answer = "Yes"
	No      Answer = "No"
	Unknown Answer = "Unknown"
)

// Finding is an answer, and a sentence that says what was seen, for people.
type Finding struct {
	Answer   Answer
	Sentence string
}

// Services reads a Service of Namespace; client-go's typed client of that namespace is one.
type Services interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Service, error)
}

// Probe looks at the Service by which TKE exposes the API server in the private network. It never fails: an error of the
// API server makes the answer Unknown, and stands in the sentence.
func Probe(ctx context.Context, services Services) Finding {
	const name = Namespace + "/" + ServiceName
	service, err := services.Get(ctx, ServiceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Finding{Unknown, fmt.Sprintf("The cluster has no Service %s, by which TKE shows private network access.", name)}
	case err != nil:
		return Finding{Unknown, fmt.Sprintf("The Service %s cannot be read: %v.", name, err)}
	case service.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return Finding{No, fmt.Sprintf("The Service %s is of type %s and not LoadBalancer.", name, service.Spec.Type)}
	}
	if address := ingressAddress(service); address != "" {
		return Finding{Yes, fmt.Sprintf("The Service %s has the address %s.", name, address)}
	}
	return Finding{No, fmt.Sprintf("The Service %s has no address.", name)}
}

// ingressAddress returns the first IP address or host name of the load balancer, or "".
func ingressAddress(service *corev1.Service) string {
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			return ingress.IP
		}
		if ingress.Hostname != "" {
			return ingress.Hostname
		}
	}
	return ""
}

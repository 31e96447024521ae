// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package privatenet_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/privatenet"
)

// services answers every Get for the right name, and panics on another.
type services struct {
	service *corev1.Service
	err     error
}

func (s services) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Service, error) {
	if name != "kubernetes-intranet" {
		panic("unexpected name " + name)
	}
	return s.service, s.err
}

func loadBalancer(ingress ...corev1.LoadBalancerIngress) services {
	service := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	service.Status.LoadBalancer.Ingress = ingress
	return services{service: service}
}

func TestProbe(t *testing.T) {
	resource := corev1.Resource("services")
	tests := map[string]struct {
		services services
		want     privatenet.Finding
	}{
		"a load balancer with an IP address means yes": {
			services: loadBalancer(corev1.LoadBalancerIngress{IP: "10.0.0.7"}),
			want:     privatenet.Finding{Answer: privatenet.Yes, Sentence: "The Service default/kubernetes-intranet has the address 10.0.0.7."},
		},
		"a load balancer with a host name means yes": {
			services: loadBalancer(corev1.LoadBalancerIngress{}, corev1.LoadBalancerIngress{Hostname: "cls.internal"}),
			want:     privatenet.Finding{Answer: privatenet.Yes, Sentence: "The Service default/kubernetes-intranet has the address cls.internal."},
		},
		"a load balancer without an address means no": {
			services: loadBalancer(),
			want:     privatenet.Finding{Answer: privatenet.No, Sentence: "The Service default/kubernetes-intranet has no address."},
		},
		"an entry without an address is none": {
			services: loadBalancer(corev1.LoadBalancerIngress{}),
			want:     privatenet.Finding{Answer: privatenet.No, Sentence: "The Service default/kubernetes-intranet has no address."},
		},
		"a Service of another type means no": {
			services: services{service: &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}}},
			want:     privatenet.Finding{Answer: privatenet.No, Sentence: "The Service default/kubernetes-intranet is of type ClusterIP and not LoadBalancer."},
		},
		"an absent Service means nobody knows": {
			services: services{err: apierrors.NewNotFound(resource, "kubernetes-intranet")},
			want: privatenet.Finding{
				Answer:   privatenet.Unknown,
				Sentence: "The cluster has no Service default/kubernetes-intranet, by which TKE shows private network access.",
			},
		},
		"a Service that may not be read means nobody knows": {
			services: services{err: apierrors.NewForbidden(resource, "kubernetes-intranet", errors.New("no access"))},
			want: privatenet.Finding{
				Answer: privatenet.Unknown,
				Sentence: "The Service default/kubernetes-intranet cannot be read: services \"kubernetes-intranet\" is " +
					"forbidden: no access.",
			},
		},
		"any other error means nobody knows": {
			services: services{err: errors.New("connection refused")},
			want: privatenet.Finding{
				Answer:   privatenet.Unknown,
				Sentence: "The Service default/kubernetes-intranet cannot be read: connection refused.",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := privatenet.Probe(t.Context(), test.services)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// permission is one thing that somebody may do. Its fields are as of RBAC, so "*" stands for all. It is comparable.
type permission struct {
	verb, group, resource, subresource string
	// namespace is empty for a cluster-scoped resource, and for all namespaces.
	namespace string
	// name is empty for all names.
	name string
	// url is set for a path that is no resource; group to name are empty then.
	url string
}

// String writes the permission so that it can follow "kubectl auth can-i":
//
//	patch secrets/some-name -n some-namespace
//	update ingresses.extensions --subresource=status
func (p permission) String() string {
	if p.url != "" {
		return p.verb + " " + p.url
	}
	text := p.verb + " " + p.resource
	if p.group != "" {
		text += "." + p.group
	}
	if p.name != "" {
		text += "/" + p.name
	}
	if p.subresource != "" {
		text += " --subresource=" + p.subresource
	}
	if p.namespace != "" {
		text += " -n " + p.namespace
	}
	return text
}

func (p permission) review() *authorizationv1.SelfSubjectAccessReview {
	review := &authorizationv1.SelfSubjectAccessReview{}
	if p.url != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: p.url, Verb: p.verb}
		return review
	}
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: p.namespace, Name: p.name, Verb: p.verb,
		Group: p.group, Resource: p.resource, Subresource: p.subresource,
	}
	return review
}

// missing returns those permissions that the client's own user does not have, in their order.
func missing(ctx context.Context, client kubernetes.Interface, permissions []permission) ([]permission, error) {
	var lacking []permission
	for _, p := range permissions {
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, p.review(), metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("ask whether %q is allowed: %w", p, err)
		}
		if !review.Status.Allowed {
			lacking = append(lacking, p)
		}
	}
	return lacking, nil
}

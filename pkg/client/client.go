// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package client makes clients of the guard's custom resources and of its ConfigMaps of notes, and asks who a client is.
package client

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// New returns a client of the kinds in v1alpha1. It does not call the API server.
func New(config *rest.Config) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make a scheme of the custom resources: %w", err)
	}
	// With a fixed mapping, the first request needs no discovery call, which could fail.
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"AuditRecord", "Unlock"} {
		mapper.Add(v1alpha1.GroupVersion().WithKind(kind), meta.RESTScopeRoot)
	}
	// The library's global logger complains that it was not set.
	quiet := logr.FromSlogHandler(slog.DiscardHandler)
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper, Log: quiet})
	if err != nil {
		return nil, fmt.Errorf("make a client of the custom resources: %w", err)
	}
	return c, nil
}

// UserName returns the name of the client's user, as the API server authenticates it.
func UserName(ctx context.Context, c kubernetes.Interface) (string, error) {
	review, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask the API server for the user name: %w", err)
	}
	return review.Status.UserInfo.Username, nil
}

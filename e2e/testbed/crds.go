// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/crds"
)

// establishedInterval is the interval between checks for a new kind, and establishedTimeout is their max time.
const (
	establishedInterval = 100 * time.Millisecond
	establishedTimeout  = 30 * time.Second
)

// createDelay is the time for which an API server delays the creation of objects of a new kind. It is 2 s in
// pkg/apiserver/customresource_handler.go of k8s.io/apiextensions-apiserver.
const createDelay = 2 * time.Second

// InstallCRDs installs the CustomResourceDefinitions of the guard, like the chart, and returns once the API server serves them
// without delay.
func (c *Cluster) InstallCRDs(ctx context.Context) error {
	client, err := dynamic.NewForConfig(c.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := installCRDs(ctx, client, c.version); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(createDelay):
		return nil
	}
}

func installCRDs(ctx context.Context, client dynamic.Interface, server string) error {
	current, err := version.ParseGeneric(server)
	if err != nil {
		return fmt.Errorf("read the API server's version: %w", err)
	}
	definitions, err := crds.Definitions(current)
	if err != nil {
		return err
	}
	for _, definition := range definitions {
		if err := installCRD(ctx, client, definition); err != nil {
			return err
		}
	}
	return nil
}

func installCRD(ctx context.Context, client dynamic.Interface, definition *unstructured.Unstructured) error {
	options := metav1.ApplyOptions{FieldManager: "testbed", Force: true}
	if _, err := client.Resource(crds.Resource()).Apply(ctx, definition.GetName(), definition, options); err != nil {
		return fmt.Errorf("install %s: %w", definition.GetName(), err)
	}
	group, _, err := unstructured.NestedString(definition.Object, "spec", "group")
	plural, _, pluralErr := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	versions, _, versionErr := unstructured.NestedSlice(definition.Object, "spec", "versions")
	if err := errors.Join(err, pluralErr, versionErr); err != nil {
		return fmt.Errorf("read %s: %w", definition.GetName(), err)
	}
	for _, version := range versions {
		name, _, _ := unstructured.NestedString(version.(map[string]any), "name") //nolint:forcetypeassert,errcheck // it was applied
		resource := schema.GroupVersionResource{Group: group, Version: name, Resource: plural}
		err := wait.PollUntilContextTimeout(ctx, establishedInterval, establishedTimeout, true, func(ctx context.Context) (bool, error) {
			_, err := client.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
			return err == nil, nil
		})
		if err != nil {
			return fmt.Errorf("wait for %s: %w", definition.GetName(), err)
		}
	}
	return nil
}

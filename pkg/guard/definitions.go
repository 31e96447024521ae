// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/crds"
)

// selectableFieldsSince is the first API server that knows the field: server-side apply of it fails before.
// https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#crd-selectable-fields
const selectableFieldsSince = "1.30.0"

// applyDefinitions applies the CustomResourceDefinitions of the guard, until the API server has stored each once. They belong to no
// release, so that neither helm nor a deletion of the rendered chart takes the audit records along, and no other release is in the way.
func (g *Guard) applyDefinitions(ctx context.Context) {
	if !g.options.ApplyCRDs {
		return
	}
	client, err := dynamic.NewForConfig(g.config)
	if err != nil {
		g.options.Log.Error("failed to make a client of definitions", slog.Any("err", err))
		return
	}
	_ = wait.PollUntilContextCancel(ctx, checkInterval, true, func(ctx context.Context) (bool, error) {
		err := g.applyEachDefinition(ctx, client.Resource(crds.Resource()))
		if err != nil {
			g.options.Log.Error("failed to apply the definitions of the custom resources", slog.Any("err", err))
		}
		return err == nil, nil
	})
}

func (g *Guard) applyEachDefinition(ctx context.Context, client dynamic.ResourceInterface) error {
	server, err := g.client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("ask for the API server's version: %w", err)
	}
	current, err := version.ParseGeneric(server.GitVersion)
	if err != nil {
		return fmt.Errorf("read the API server's version: %w", err)
	}
	definitions, err := definitionsFor(current)
	if err != nil {
		return err
	}
	for _, definition := range definitions {
		options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
		if _, err := client.Apply(ctx, definition.GetName(), definition, options); err != nil {
			return fmt.Errorf("apply customresourcedefinition %q: %w", definition.GetName(), err)
		}
	}
	return nil
}

// definitionsFor returns the CustomResourceDefinitions as an API server of this version takes them.
func definitionsFor(server *version.Version) ([]*unstructured.Unstructured, error) {
	knowsSelectable := server.AtLeast(version.MustParseGeneric(selectableFieldsSince))
	all, err := crds.Definitions()
	if err != nil {
		return nil, err
	}
	for _, definition := range all {
		definition.SetLabels(map[string]string{"app.kubernetes.io/name": guardian.Name}) // as the chart does, or helm finds a conflict
		if knowsSelectable {
			continue
		}
		if err := dropSelectableFields(definition); err != nil {
			return nil, fmt.Errorf("read customresourcedefinition %q: %w", definition.GetName(), err)
		}
	}
	return all, nil
}

func dropSelectableFields(definition *unstructured.Unstructured) error {
	versions, _, err := unstructured.NestedSlice(definition.Object, "spec", "versions")
	if err != nil {
		return err
	}
	for _, each := range versions {
		if fields, isMap := each.(map[string]any); isMap {
			delete(fields, "selectableFields")
		}
	}
	return unstructured.SetNestedSlice(definition.Object, versions, "spec", "versions")
}

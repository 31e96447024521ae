// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package crds holds the definitions of the guard's custom resources, as generated from their Go types. The leader
// applies them, and the chart has a copy.
package crds

import (
	"embed"
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

//go:embed *.yaml
var files embed.FS

// Resource is the resource of a CustomResourceDefinition.
func Resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// selectableFieldsSince is the first API server that knows the field: server-side apply of it fails before.
// https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#crd-selectable-fields
const selectableFieldsSince = "1.30.0"

// Definitions returns one CustomResourceDefinition for each custom resource, as an API server of this version takes it. The caller may
// change them.
func Definitions(server *version.Version) ([]*unstructured.Unstructured, error) {
	knowsSelectable := server.AtLeast(version.MustParseGeneric(selectableFieldsSince))
	paths, _ := fs.Glob(files, "*.yaml") // the pattern is valid
	var all []*unstructured.Unstructured
	for _, path := range paths {
		data, _ := files.ReadFile(path) // it is there
		definition := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, definition); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		definition.SetLabels(map[string]string{"app.kubernetes.io/name": guardian.Name}) // as the chart does, or helm finds a conflict
		if !knowsSelectable {
			if err := dropSelectableFields(definition); err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
		}
		all = append(all, definition)
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

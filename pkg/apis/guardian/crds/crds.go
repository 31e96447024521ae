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
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml
var files embed.FS

// Resource is the resource of a CustomResourceDefinition.
func Resource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// Definitions returns one CustomResourceDefinition for each custom resource. The caller may change them.
func Definitions() ([]*unstructured.Unstructured, error) {
	paths, _ := fs.Glob(files, "*.yaml") // the pattern is valid
	var all []*unstructured.Unstructured
	for _, path := range paths {
		data, _ := files.ReadFile(path) // it is there
		definition := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, definition); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		all = append(all, definition)
	}
	return all, nil
}

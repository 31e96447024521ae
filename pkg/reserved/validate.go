// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reservedMetadata returns the metadata fields that a manifest may set. The API server writes the others.
func reservedMetadata() []string {
	return []string{"name", "namespace", "labels", "annotations", "finalizers"}
}

// validate returns every mistake of a file, in the order of its fields.
func validate(f *file) field.ErrorList {
	var errs field.ErrorList
	if f.APIVersion != APIVersion {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), f.APIVersion, []string{APIVersion}))
	}
	if f.Kind != Kind {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), f.Kind, []string{Kind}))
	}
	for _, message := range validation.IsDNS1123Label(f.Metadata.Name) {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), f.Metadata.Name, message))
	}
	errs = append(errs, validateOwner(f.Spec.Owner, field.NewPath("spec", "owner"))...)
	if len(f.Spec.Resources) == 0 {
		errs = append(errs, field.Required(resourcesPath(), "must have at least one resource"))
	}
	for i, resource := range f.Spec.Resources {
		errs = append(errs, validateResource(resource, resourcesPath().Index(i))...)
	}
	for i := range f.Spec.Exemptions {
		errs = append(errs, validateExemption(&f.Spec.Exemptions[i], field.NewPath("spec", "exemptions").Index(i))...)
	}
	return errs
}

// validateOwner accepts one short line, because every denial message contains the owner.
func validateOwner(owner string, at *field.Path) field.ErrorList {
	const maxOwner = 64
	switch {
	case strings.TrimSpace(owner) == "":
		return field.ErrorList{field.Required(at, "must be the owner that messages name, such as \"API Gateway\"")}
	case len(owner) > maxOwner:
		return field.ErrorList{field.TooLong(at, owner, maxOwner)}
	case strings.ContainsFunc(owner, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return field.ErrorList{field.Invalid(at, owner, "must be one line of text")}
	}
	return nil
}

func validateResource(r fileResource, at *field.Path) field.ErrorList {
	manifest := at.Child("manifest")
	if len(r.Manifest) == 0 {
		return field.ErrorList{field.Required(manifest, "must be the manifest of the resource")}
	}
	object := unstructured.Unstructured{Object: r.Manifest}
	if object.IsList() {
		return field.ErrorList{field.Invalid(manifest.Child("kind"), object.GetKind(), "must be one object: write a resource for each item of the list")}
	}
	errs := validateType(object, manifest)
	errs = append(errs, validateMetadata(object, manifest.Child("metadata"))...)
	if !strings.HasPrefix(object.GetName(), r.NamePrefix) {
		errs = append(errs, field.Invalid(at.Child("namePrefix"), r.NamePrefix,
			fmt.Sprintf("must be the start of the manifest's name %q", object.GetName())))
	}
	if r.Resource != "" {
		for _, message := range validation.IsDNS1123Label(r.Resource) {
			errs = append(errs, field.Invalid(at.Child("resource"), r.Resource, message))
		}
	}
	switch _, hasText := r.Manifest["stringData"]; {
	case isTokenSecret(object):
		errs = append(errs, validateTokenSecret(object, manifest)...)
	case hasText && object.GetAPIVersion() == "v1" && object.GetKind() == "Secret":
		errs = append(errs, field.Forbidden(manifest.Child("stringData"), "the API server stores it in base64: write it as data"))
	}
	if _, found := r.Manifest["status"]; found {
		errs = append(errs, field.Forbidden(manifest.Child("status"), "the control plane writes it: remove it"))
	}
	return errs
}

func validateType(object unstructured.Unstructured, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if _, err := schema.ParseGroupVersion(object.GetAPIVersion()); err != nil || object.GetAPIVersion() == "" {
		errs = append(errs, field.Required(at.Child("apiVersion"), `for example "v1" or "apps/v1"`))
	}
	if object.GetKind() == "" {
		errs = append(errs, field.Required(at.Child("kind"), `for example "ConfigMap"`))
	}
	return errs
}

func validateMetadata(object unstructured.Unstructured, at *field.Path) field.ErrorList {
	metadata, isObject := object.Object["metadata"].(map[string]any)
	if !isObject {
		return field.ErrorList{field.Required(at, "must have the name of the resource")}
	}
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !slices.Contains(reservedMetadata(), key) {
			errs = append(errs, field.NotSupported(at, key, reservedMetadata()))
		}
	}
	if object.GetName() == "" {
		errs = append(errs, field.Required(at.Child("name"), "must be the name of the resource"))
	}
	for _, message := range content.IsPathSegmentName(object.GetName()) {
		errs = append(errs, field.Invalid(at.Child("name"), object.GetName(), message))
	}
	for _, key := range []string{"labels", "annotations"} {
		if _, _, err := unstructured.NestedStringMap(metadata, key); err != nil {
			errs = append(errs, field.TypeInvalid(at.Child(key), metadata[key], "must have text as values: quote numbers, true and false"))
		}
	}
	return append(errs, validateNamespace(object, at.Child("namespace"))...)
}

// validateNamespace checks that a resource of a well-known kind has a namespace if, and only if, its kind is namespaced. For the other
// kinds, CheckServed does so.
func validateNamespace(object unstructured.Unstructured, at *field.Path) field.ErrorList {
	namespaced, known := map[string]bool{
		"v1 ServiceAccount": true, "v1 Secret": true, "v1 ConfigMap": true, "v1 Service": true, "v1 Namespace": false,
		"rbac.authorization.k8s.io/v1 Role": true, "rbac.authorization.k8s.io/v1 RoleBinding": true,
		"rbac.authorization.k8s.io/v1 ClusterRole": false, "rbac.authorization.k8s.io/v1 ClusterRoleBinding": false,
	}[object.GetAPIVersion()+" "+object.GetKind()]
	switch namespace := object.GetNamespace(); {
	case known && namespaced && namespace == "":
		return field.ErrorList{field.Required(at, "a "+object.GetKind()+" must have a namespace")}
	case known && !namespaced && namespace != "":
		return field.ErrorList{field.Forbidden(at, "a "+object.GetKind()+" has no namespace: remove it")}
	case namespace == "":
		return nil
	default:
		var errs field.ErrorList
		for _, message := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, field.Invalid(at, namespace, message))
		}
		return errs
	}
}

// validateTokenSecret forbids credentials in reservation files: kube-controller-manager fills the Secret.
func validateTokenSecret(object unstructured.Unstructured, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	account := at.Child("metadata", "annotations").Key(corev1.ServiceAccountNameKey)
	if object.GetAnnotations()[corev1.ServiceAccountNameKey] == "" {
		errs = append(errs, field.Required(account, "must be the ServiceAccount of the token"))
	}
	for _, key := range []string{"data", "stringData"} {
		if _, found := object.Object[key]; found {
			errs = append(errs, field.Forbidden(at.Child(key), "the control plane fills a token Secret: remove it"))
		}
	}
	return errs
}

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

// reservedMetadata are the fields that a manifest may set below metadata. The API server writes the others.
func reservedMetadata() []string {
	return []string{"name", "namespace", "labels", "annotations", "finalizers"}
}

// validate returns every mistake of a file, in its order.
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
		errs = append(errs, field.Required(resourcesPath(), "a reservation reserves at least one resource"))
	}
	for i, entry := range f.Spec.Resources {
		errs = append(errs, validateResource(entry, resourcesPath().Index(i))...)
	}
	return errs
}

// validateOwner holds the owner to one short line, as it stands in every message that a denied person reads.
func validateOwner(owner string, at *field.Path) field.ErrorList {
	const maxOwner = 64
	switch {
	case strings.TrimSpace(owner) == "":
		return field.ErrorList{field.Required(at, "whom the resources are reserved for, as messages name it")}
	case len(owner) > maxOwner:
		return field.ErrorList{field.TooLong(at, owner, maxOwner)}
	case strings.ContainsFunc(owner, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return field.ErrorList{field.Invalid(at, owner, "must be one line of text")}
	}
	return nil
}

func validateResource(entry fileResource, at *field.Path) field.ErrorList {
	manifest := at.Child("manifest")
	if len(entry.Manifest) == 0 {
		return field.ErrorList{field.Required(manifest, "what the resource must look like")}
	}
	object := unstructured.Unstructured{Object: entry.Manifest}
	errs := validateType(object, manifest)
	errs = append(errs, validateMetadata(object, manifest.Child("metadata"))...)
	if entry.NamePrefix != "" && !strings.HasPrefix(object.GetName(), entry.NamePrefix) {
		errs = append(errs, field.Invalid(at.Child("namePrefix"), entry.NamePrefix,
			fmt.Sprintf("the manifest's own name %q must start with it", object.GetName())))
	}
	for _, message := range resourceMessages(entry.Resource) {
		errs = append(errs, field.Invalid(at.Child("resource"), entry.Resource, message))
	}
	if isTokenSecret(object) {
		errs = append(errs, validateTokenSecret(object, manifest)...)
	}
	if _, found := entry.Manifest["status"]; found {
		errs = append(errs, field.Forbidden(manifest.Child("status"), "the cluster writes it: remove it"))
	}
	return errs
}

func resourceMessages(resource string) []string {
	if resource == "" {
		return nil
	}
	return validation.IsDNS1123Label(resource)
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
		return field.ErrorList{field.Required(at, "with the name of the resource")}
	}
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if !slices.Contains(reservedMetadata(), key) {
			errs = append(errs, field.NotSupported(at, key, reservedMetadata()))
		}
	}
	if object.GetName() == "" {
		errs = append(errs, field.Required(at.Child("name"), "the name of the resource, as a string"))
	}
	for _, message := range content.IsPathSegmentName(object.GetName()) {
		errs = append(errs, field.Invalid(at.Child("name"), object.GetName(), message))
	}
	if object.GetNamespace() == "" {
		if object.GetAPIVersion() == "v1" && slices.Contains([]string{"ServiceAccount", "Secret", "ConfigMap"}, object.GetKind()) {
			errs = append(errs, field.Required(at.Child("namespace"), "a "+object.GetKind()+" lives in a namespace"))
		}
		return errs
	}
	for _, message := range validation.IsDNS1123Label(object.GetNamespace()) {
		errs = append(errs, field.Invalid(at.Child("namespace"), object.GetNamespace(), message))
	}
	return errs
}

// validateTokenSecret keeps credentials out of reservation files: kube-controller-manager fills the Secret.
func validateTokenSecret(object unstructured.Unstructured, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	account := at.Child("metadata", "annotations").Key(corev1.ServiceAccountNameKey)
	if object.GetAnnotations()[corev1.ServiceAccountNameKey] == "" {
		errs = append(errs, field.Required(account, "the ServiceAccount whose token it holds"))
	}
	for _, key := range []string{"data", "stringData"} {
		if _, found := object.Object[key]; found {
			errs = append(errs, field.Forbidden(at.Child(key), "the control plane fills a token Secret: remove it"))
		}
	}
	return errs
}

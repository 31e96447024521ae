// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// This file judges last-applied-configuration and managedFields, in which kubectl and the API server keep the history of an
// object. Forged values turn a later, legitimate write into damage. kubectl apply removes the fields that
// last-applied-configuration has and the applied manifest lacks. Server-side apply removes the fields that managedFields gives
// to the applying manager.

// isBookkeeping reports whether a change of the field cannot do harm: the API server writes the field at every update, or it is
// a harmless last-applied-configuration. newOwners judges managedFields.
func (c *comparison) isBookkeeping(at *path, v versions) bool {
	return at.is("metadata", "resourceVersion") || at.is("metadata", "generation") || at.is("metadata", "selfLink") ||
		at.is("metadata", "managedFields") ||
		at.is("metadata", "annotations", corev1.LastAppliedConfigAnnotation) && c.isLastAppliedHarmless(v.new)
}

// maxAnnotation is the max size of the annotation as JSON. All annotations of an object take at most 256 KiB
// (TotalAnnotationSizeLimitB in k8s.io/apimachinery/pkg/api/validation), and Go's JSON takes up to six bytes for one.
const maxAnnotation = 6 * 256 << 10

// maxOwners is the max number of field managers that are compared. The API server merges the updates of more than ten managers.
const maxOwners = 1024

// isLastAppliedHarmless reports whether the annotation is absent, or kubectl would write it for the manifest: it has only values of
// the manifest, the object's own name, and empty fields that clients add. It has no other text, such as a token.
func (c *comparison) isLastAppliedHarmless(annotation rawjson.Value) bool {
	if annotation.IsEmpty() || string(annotation) == `""` {
		return true
	}
	if len(annotation) > maxAnnotation || !c.resource.HasManifest() {
		return false
	}
	applied, err := rawjson.Parse([]byte(annotation.Text()))
	if err != nil || !applied.IsObject() {
		return false
	}
	s := subset{resource: c.resource, name: c.object.Get("metadata", "name"), budget: maxPasses * len(applied)}
	return s.contains(nil, c.resource.Manifest(), applied)
}

// subset checks that a manifest contains every field of a value. The manifest may have more fields.
type subset struct {
	resource *reserved.Resource
	name     rawjson.Value // of the object
	budget   int           // bytes left to read
}

// contains reports whether value has only fields of want, with the same values.
func (s *subset) contains(at *path, want, value rawjson.Value) bool {
	if s.budget -= len(value); s.budget < 0 {
		return false
	}
	switch {
	case len(want) == 0 && (isSystemOwned(s.resource, at) || leadsToSystemField(s.resource, at)):
		return false // the next kubectl apply would remove the field from the live object, whatever its value is here
	case value.IsEmpty(), len(want) == 0 && value.TextIs(""):
		return len(want) > 0 || isOftenEmpty(at)
	case at.is("metadata", "name") && s.resource.NamePrefix != "":
		return rawjson.EqualText(s.name, value)
	case at.is("metadata", "namespace") && s.resource.Namespace == "":
		return len(validation.IsDNS1123Label(value.Text())) == 0 // kubectl ignores the namespace of a cluster-scoped object
	case isRules(s.resource, at):
		return equalRules(want, value) && s.hasTextsOf(want, value)
	case value.IsObject():
		return s.containsMembers(at, want, value)
	case value.IsArray():
		return s.containsElements(at, want, value)
	}
	return rawjson.EqualText(want, value) || isFalseDefault(at, want, value)
}

// isOftenEmpty reports whether clients write the field without a value. The name of any other field could be a secret text.
func isOftenEmpty(at *path) bool {
	if at == nil {
		return true
	}
	switch string(at.key) {
	case "aggregationRule", "annotations", "apiGroup", "automountServiceAccountToken", "creationTimestamp", "data",
		"finalizers", "generateName", "imagePullSecrets", "immutable", "labels", "managedFields", "namespace",
		"ownerReferences", "resourceVersion", "rules", "secrets", "selfLink", "spec", "status", "stringData",
		"subjects", "uid":
		return true
	}
	return false
}

// hasTextsOf reports whether each text in the rules is one of the manifest's: equal rules may grant nothing, or the same by a name.
func (s *subset) hasTextsOf(want, value rawjson.Value) bool {
	texts := map[string]bool{}
	for _, rule := range elements(nil, want) {
		for _, list := range rule.Members() {
			for text := range list.Elements() {
				texts[text.Text()] = true
			}
		}
	}
	for _, rule := range elements(nil, value) {
		for _, list := range rule.Members() {
			for text := range list.Elements() {
				if !texts[text.Text()] {
					return false
				}
			}
		}
	}
	return true
}

func (s *subset) containsMembers(at *path, want, value rawjson.Value) bool {
	wants := membersOf(nil, want)
	for key, member := range value.Members() {
		if !s.contains(&path{parent: at, key: key}, wants.take(key), member) {
			return false
		}
	}
	return true
}

func (s *subset) containsElements(at *path, want, value rawjson.Value) bool {
	wants, values := elements(nil, want), elements(nil, value)
	if len(wants) != len(values) {
		return false
	}
	for i, element := range values {
		if !s.contains(&path{parent: at, index: i + 1}, wants[i], element) {
			return false
		}
	}
	return true
}

// leadsToSystemField reports whether the field contains one that only the control plane writes.
func leadsToSystemField(resource *reserved.Resource, at *path) bool {
	depth := 0
	for step := at; step != nil; step = step.parent {
		depth++
	}
	return slices.ContainsFunc(resource.SystemFields(), func(field []string) bool {
		return depth > 0 && depth < len(field) && at.is(field[:depth]...)
	})
}

// owner is a field manager, as an item of managedFields names it.
type owner struct{ manager, operation string }

// beforeFirstApply returns the owner that the API server gives all fields at the first server-side apply to an object without
// managed fields. No client applies under this name, so no later apply removes them.
func beforeFirstApply() owner { return owner{manager: "before-first-apply", operation: "Update"} }

// newOwners returns the field managers that a write makes owners of a field that only the control plane writes.
func newOwners(resource *reserved.Resource, old, new rawjson.Value) []owner {
	if len(resource.SystemFields()) == 0 {
		return nil
	}
	before, after := ownersOf(resource, old), ownersOf(resource, new)
	return slices.DeleteFunc(after, func(o owner) bool { return slices.Contains(before, o) })
}

// ownersOf returns at most maxOwners managers that own a field that only the control plane writes.
func ownersOf(resource *reserved.Resource, managedFields rawjson.Value) []owner {
	var owners []owner
	for item := range managedFields.Elements() {
		if len(owners) == maxOwners {
			break
		}
		o := owner{manager: item.Get("manager").Text(), operation: item.Get("operation").Text()}
		if o != beforeFirstApply() && ownsSystemField(resource, item.Get("fieldsV1")) {
			owners = append(owners, o)
		}
	}
	return owners
}

func ownsSystemField(resource *reserved.Resource, fields rawjson.Value) bool {
	return slices.ContainsFunc(resource.SystemFields(), func(field []string) bool { return owns(fields, field) })
}

// owns reports whether a set of fields, in the format FieldsV1, has the field, or has an object around it as a whole.
func owns(fields rawjson.Value, field []string) bool {
	for _, key := range field {
		if fields = fields.Get("f:" + key); len(fields) == 0 || fields.IsEmpty() {
			return len(fields) > 0
		}
	}
	return true
}

// isUser reports whether the field manager is not a controller's. kubectl turns its Update items into Apply items, and its next
// server-side apply then removes the fields that it owns and the manifest lacks.
func (o owner) isUser() bool {
	return o.operation != "Update" || strings.HasPrefix(o.manager, "kubectl")
}

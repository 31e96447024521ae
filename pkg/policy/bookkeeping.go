// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// This file judges what kubectl and the API server note about a write in the object itself. A false note makes a later,
// honest write do harm: kubectl removes the fields that last-applied-configuration has and its own manifest lacks, and
// server-side apply removes the fields that managedFields gives to the manager that applies.

// isBookkeeping tells the fields that grant and hide nothing: those that the API server writes at every update, and a
// harmless last-applied-configuration. The managed fields are judged on their own, see newOwners.
func (c *comparison) isBookkeeping(at *path, v versions) bool {
	return at.is("metadata", "resourceVersion") || at.is("metadata", "generation") || at.is("metadata", "selfLink") ||
		at.is("metadata", "managedFields") ||
		at.is("metadata", "annotations", corev1.LastAppliedConfigAnnotation) && isLastAppliedHarmless(c.resource, v.new)
}

// maxAnnotation bounds the annotation as JSON: all annotations of an object together take 256 KiB at most
// (TotalAnnotationSizeLimitB in k8s.io/apimachinery/pkg/api/validation), and JSON as Go writes it takes up to six bytes for one.
const maxAnnotation = 6 * 256 << 10

// maxOwners bounds the field managers that are told apart. The API server itself merges the updates of more than ten managers.
const maxOwners = 1024

// isLastAppliedHarmless says that the annotation is absent, or says nothing that the manifest does not say.
func isLastAppliedHarmless(resource *reserved.Resource, annotation rawjson.Value) bool {
	if annotation.IsEmpty() || string(annotation) == `""` {
		return true
	}
	if len(annotation) > maxAnnotation || !resource.HasManifest() {
		return false
	}
	applied, err := rawjson.Parse([]byte(annotation.Text()))
	if err != nil || !applied.IsObject() {
		return false
	}
	s := subset{resource: resource, budget: maxPasses * len(applied)}
	return s.says(nil, resource.Manifest(), applied)
}

// subset compares a value with a manifest that may say more.
type subset struct {
	resource *reserved.Resource
	budget   int
}

func (s *subset) says(at *path, want, value rawjson.Value) bool {
	if s.budget -= len(value); s.budget < 0 {
		return false
	}
	switch {
	case len(want) == 0 && (isSystemOwned(s.resource, at) || leadsToSystemField(s.resource, at)):
		return false // kubectl removes it from the live object, whatever its value is here
	case value.IsEmpty(), len(want) == 0 && value.TextIs(""):
		return true
	case at.is("metadata", "name") && s.resource.NamePrefix != "":
		return strings.HasPrefix(value.Text(), s.resource.NamePrefix)
	case at.is("metadata", "namespace") && s.resource.Namespace == "":
		return true // kubectl does not look for the object there
	case isRules(s.resource, at):
		return equalRules(want, value)
	case value.IsObject():
		return s.saysMembers(at, want, value)
	case value.IsArray():
		return s.saysElements(at, want, value)
	}
	return rawjson.EqualText(want, value) || isFalseDefault(at, want, value)
}

func (s *subset) saysMembers(at *path, want, value rawjson.Value) bool {
	wants := membersOf(nil, want)
	for key, member := range value.Members() {
		if !s.says(&path{parent: at, key: key}, wants.take(key), member) {
			return false
		}
	}
	return true
}

func (s *subset) saysElements(at *path, want, value rawjson.Value) bool {
	wants, values := elements(nil, want), elements(nil, value)
	if len(wants) != len(values) {
		return false
	}
	for i, element := range values {
		if !s.says(&path{parent: at, index: i + 1}, wants[i], element) {
			return false
		}
	}
	return true
}

// leadsToSystemField says that a field that only the control plane writes is within the field.
func leadsToSystemField(resource *reserved.Resource, at *path) bool {
	depth := 0
	for step := at; step != nil; step = step.parent {
		depth++
	}
	return slices.ContainsFunc(resource.SystemFields(), func(field []string) bool {
		return depth > 0 && depth < len(field) && at.is(field[:depth]...)
	})
}

// owner is a field manager, as an entry of managedFields names it.
type owner struct{ manager, operation string }

// nobody is what the API server itself names as the owner of all fields at the first server-side apply to an object that has no
// managed fields. No client applies under that name, so nothing is removed by it.
func nobody() owner { return owner{manager: "before-first-apply", operation: "Update"} }

// newOwners returns the field managers that own, after a write and not before, a field that only the control plane writes.
func newOwners(resource *reserved.Resource, old, new rawjson.Value) []owner {
	if len(resource.SystemFields()) == 0 {
		return nil
	}
	before, after := ownersOf(resource, old), ownersOf(resource, new)
	return slices.DeleteFunc(after, func(o owner) bool { return slices.Contains(before, o) })
}

// ownersOf returns the managers that own a field that only the control plane writes, and no more than maxOwners of them.
func ownersOf(resource *reserved.Resource, managedFields rawjson.Value) []owner {
	var owners []owner
	for entry := range managedFields.Elements() {
		if len(owners) == maxOwners {
			break
		}
		o := owner{manager: entry.Get("manager").Text(), operation: entry.Get("operation").Text()}
		if o != nobody() && ownsSystemField(resource, entry) {
			owners = append(owners, o)
		}
	}
	return owners
}

func ownsSystemField(resource *reserved.Resource, entry rawjson.Value) bool {
	fields := entry.Get("fieldsV1")
	for _, field := range resource.SystemFields() {
		if owns(fields, field) {
			return true
		}
	}
	return false
}

// owns says that a set of fields, in the form of FieldsV1, has the field, or an object that it is in as a whole.
func owns(fields rawjson.Value, field []string) bool {
	for _, key := range field {
		if fields = fields.Get("f:" + key); len(fields) == 0 || fields.IsEmpty() {
			return len(fields) > 0
		}
	}
	return true
}

// isForeign tells a field manager that is no controller's. kubectl turns the entry of its updates into one of server-side
// apply, which removes the fields that it owns and does not name.
func (o owner) isForeign() bool {
	return o.operation != "Update" || strings.HasPrefix(o.manager, "kubectl")
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// change is one field that an update changes in meaning.
type change struct {
	at       *path
	old, new rawjson.Value
}

// comparison walks two versions of an object side by side and collects what differs in meaning. Objects are compared member
// by member, and lists element by element, as generic JSON: a typed decode would drop fields of a newer API server, and
// hide a change to them.
type comparison struct {
	resource *reserved.Resource
	// same tells fields that differ, and mean the same in this comparison all the same.
	same    func(at *path, old, new rawjson.Value) bool
	changes []change
}

// compareVersions returns what an update from old to new changes.
func compareVersions(resource *reserved.Resource, old, new rawjson.Value) []change {
	c := comparison{resource: resource, same: bookkeeping}
	c.values(nil, old, new)
	return c.changes
}

// restores reports whether a change leaves its field as the reserved manifest has it. A list is one field: it is put right
// as a whole or not at all.
func restores(resource *reserved.Resource, object rawjson.Value, changed change) bool {
	if isSystemOwned(resource, changed.at) {
		return false
	}
	field := changed.at.field()
	want, value := field.in(resource.Manifest()), field.in(object)
	if isRules(resource, field) {
		return equalRules(want, value)
	}
	c := comparison{resource: resource, same: bookkeeping}
	c.values(field, want, value)
	return len(c.changes) == 0
}

// Drift returns the paths of the fields in which a live object is not as its reserved manifest says, in no given order.
// Fields that the control plane writes (a token, references to it, the status) do not count, nor does the order of RBAC
// rules. It returns nothing for a resource without a manifest.
func Drift(resource *reserved.Resource, live rawjson.Value) []string {
	if !resource.HasManifest() {
		return nil
	}
	c := comparison{resource: resource}
	c.same = func(at *path, want, value rawjson.Value) bool {
		return c.sameAsManifest(at, want, value) || isSystemOwned(resource, at) || at.is("status")
	}
	c.values(nil, resource.Manifest(), live)
	return pathsOf(c.changes)
}

// compareWithManifest returns in what an object that is being created differs from the manifest, in any field that its
// creator can set.
func compareWithManifest(resource *reserved.Resource, object rawjson.Value) []change {
	c := comparison{resource: resource}
	c.same = c.sameAsManifest
	c.values(nil, resource.Manifest(), object)
	return c.changes
}

// sameAsManifest passes over what the API server assigns to every object, and the name, by which the entry was found: it
// may be another one under the reserved prefix.
func (c *comparison) sameAsManifest(at *path, want, value rawjson.Value) bool {
	return isBookkeeping(at) || at.is("metadata", "uid") || at.is("metadata", "creationTimestamp") ||
		at.is("metadata", "name") || isRules(c.resource, at) && equalRules(want, value)
}

func pathsOf(changes []change) []string {
	var paths []string
	for _, change := range changes {
		paths = append(paths, change.at.String())
	}
	return paths
}

func bookkeeping(at *path, _, _ rawjson.Value) bool { return isBookkeeping(at) }

// isBookkeeping tells the fields that the API server and kubectl keep for themselves.
func isBookkeeping(p *path) bool {
	return p.is("metadata", "managedFields") || p.is("metadata", "resourceVersion") ||
		p.is("metadata", "generation") || p.is("metadata", "selfLink") ||
		p.is("metadata", "annotations", corev1.LastAppliedConfigAnnotation)
}

func (c *comparison) values(at *path, old, new rawjson.Value) {
	if bytes.Equal(old, new) || old.IsEmpty() && new.IsEmpty() || c.same(at, old, new) {
		return
	}
	switch {
	case isSecretReferences(c.resource, at) && areBoth(rawjson.Value.IsArray, old, new):
		c.secretReferences(at, old, new)
	case areBoth(rawjson.Value.IsObject, old, new):
		c.objects(at, old, new)
	case areBoth(rawjson.Value.IsArray, old, new):
		c.lists(at, old, new)
	case !rawjson.EqualText(old, new) && !isFalseDefault(at, old, new):
		c.report(at, old, new)
	}
}

// areBoth reports whether both values have a form; an empty one has any.
func areBoth(form func(rawjson.Value) bool, a, b rawjson.Value) bool {
	return form(a) && (form(b) || b.IsEmpty()) || form(b) && a.IsEmpty()
}

// isFalseDefault says that `immutable: false` equals its absence, as the API server's own validation has it.
func isFalseDefault(at *path, a, b rawjson.Value) bool {
	isFalse := func(v rawjson.Value) bool { return v.IsEmpty() || string(v) == "false" }
	return at.is("immutable") && isFalse(a) && isFalse(b)
}

func (c *comparison) objects(at *path, old, new rawjson.Value) {
	var list [searchedMembers]member // on the stack, for objects of a usual size
	olds := membersOf(list[:0], old)
	for key, value := range new.Members() {
		if before := olds.take(key); !bytes.Equal(before, value) {
			c.values(&path{parent: at, key: key}, before, value)
		}
	}
	for _, left := range olds.list {
		if !left.taken {
			c.values(&path{parent: at, key: left.key}, left.value, nil)
		}
	}
}

// lists compares element by element where that tells more than that the list has changed: where the lengths are the same,
// and the elements have fields of their own.
func (c *comparison) lists(at *path, old, new rawjson.Value) {
	var oldList, newList [searchedMembers]rawjson.Value // on the stack, for lists of a usual size
	olds, news := elements(oldList[:0], old), elements(newList[:0], new)
	if len(olds) != len(news) || !areNested(olds) || !areNested(news) {
		c.report(at, old, new)
		return
	}
	for i, element := range news {
		if !bytes.Equal(olds[i], element) {
			c.values(&path{parent: at, index: i + 1}, olds[i], element)
		}
	}
}

func areNested(elements []rawjson.Value) bool {
	return !slices.ContainsFunc(elements, func(e rawjson.Value) bool { return !e.IsObject() && !e.IsArray() })
}

func (c *comparison) report(at *path, old, new rawjson.Value) {
	c.changes = append(c.changes, change{at: at, old: old, new: new})
}

// secretReferences compares the names only: which Secrets of its namespace the account lists.
func (c *comparison) secretReferences(at *path, old, new rawjson.Value) {
	if !slices.Equal(referencedNames(old), referencedNames(new)) {
		c.report(at, old, new)
	}
}

func referencedNames(references rawjson.Value) []string {
	var names []string
	for reference := range references.Elements() {
		name := reference.Get("name")
		if !name.IsString() {
			name = reference // no reference at all: it is equal to itself only
		}
		names = append(names, string(name))
	}
	return names
}

func isRules(resource *reserved.Resource, at *path) bool {
	return at.is("rules") && resource.GVR.Group == "rbac.authorization.k8s.io"
}

func isSecretReferences(resource *reserved.Resource, at *path) bool {
	return at.is("secrets") && resource.Kind == "ServiceAccount" && resource.GVR.Group == ""
}

// isSystemOwned tells the fields that only the control plane writes. Nobody else restores them, whatever the value.
func isSystemOwned(resource *reserved.Resource, at *path) bool {
	return isSecretReferences(resource, at) || resource.IsTokenSecret() && (at.under("data") ||
		at.is("metadata", "annotations", corev1.ServiceAccountUIDKey) || at.is("metadata", "labels", lastUsedLabel))
}

// lastUsedLabel is what the API server writes on a token Secret when the token is used: the constant LastUsedLabelKey of
// k8s.io/kubernetes/pkg/serviceaccount, which no library exports.
const lastUsedLabel = "kubernetes.io/legacy-token-last-used"

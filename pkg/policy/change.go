// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"slices"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// change is one field that an update changes in meaning.
type change struct {
	at       *path
	old, new rawjson.Value
	// restored says that the new value equals the reserved manifest's.
	restored bool
}

// versions are the values of one field: before the write, after it, and in the reserved manifest. A comparison that needs no
// manifest leaves want absent.
type versions struct{ old, new, want rawjson.Value }

const (
	// maxChanges is the max number of changes that a comparison collects. No legitimate write reaches it, and a message names few.
	maxChanges = 1024
	// maxPasses is the max number of times that a comparison reads the bytes of the objects. It reads a value once for each
	// object or list around it: a hostile object costs its size times its depth. A ClusterRole has a depth of four.
	maxPasses = 16
	// maxMembers is the max number of members of an object, or elements of a list, that are compared one by one. Each takes
	// 56 bytes of memory, and as few as two bytes of the review.
	maxMembers = 16 << 10
)

// comparison walks two versions of an object in one pass and collects the fields that differ in meaning. It compares objects
// member by member, and lists element by element, as generic JSON. Decoding into types would drop the fields of a newer API
// server and hide their changes.
type comparison struct {
	resource *reserved.Resource
	purpose  purpose
	changes  []change
	// list is the outermost list around the current field; nil outside of lists.
	list *listField
	// budget is the number of bytes left to read.
	budget int
	// object is the object after the write; absent in a comparison of one field.
	object rawjson.Value
}

// purpose decides which fields a comparison ignores.
type purpose int

const (
	// exact finds every difference.
	exact purpose = iota
	// ofVersions finds the changes of an update, and whether each restores its field.
	ofVersions
	// ofCreation finds differences from the manifest in the fields that the creator of an object can set.
	ofCreation
	// ofDrift finds differences from the manifest, except in fields that only the control plane writes.
	ofDrift
)

// newComparison returns the comparison of an object with the manifest, or with its earlier version of oldSize bytes.
func newComparison(resource *reserved.Resource, purpose purpose, object rawjson.Value, oldSize int) comparison {
	return comparison{
		resource: resource, purpose: purpose, object: object,
		budget: maxPasses * (len(object) + oldSize + len(resource.Manifest())),
	}
}

// compareVersions returns the changes of an update from old to new, and whether they are complete. A comparison ends early after
// maxChanges, or when it has used up its budget.
func compareVersions(resource *reserved.Resource, old, new rawjson.Value) (changes []change, complete bool) {
	c := newComparison(resource, ofVersions, new, len(old))
	c.values(nil, versions{old, new, resource.Manifest()})
	return c.changes, !c.isOver()
}

// isOver reports whether the comparison has ended early.
func (c *comparison) isOver() bool { return len(c.changes) >= maxChanges || c.budget < 0 }

// Drift returns the paths of the fields in which a live object differs from its reserved manifest, in no given order. It ignores
// the fields that only the control plane writes (a token, references to it, the status) and the order of RBAC rules. It returns
// nil for a resource without a manifest.
func Drift(resource *reserved.Resource, live rawjson.Value) []string {
	if !resource.HasManifest() {
		return nil
	}
	c := newComparison(resource, ofDrift, live, 0)
	c.values(nil, versions{old: resource.Manifest(), new: live})
	return pathsOf(c.changes)
}

// compareWithManifest returns the differences between a new object and the manifest, in the fields that the creator can set.
func compareWithManifest(resource *reserved.Resource, object rawjson.Value) []change {
	c := newComparison(resource, ofCreation, object, 0)
	c.values(nil, versions{old: resource.Manifest(), new: object})
	return c.changes
}

// isSame reports whether the comparison ignores a difference in the field.
func (c *comparison) isSame(at *path, v versions) bool {
	switch c.purpose {
	case exact:
		return false
	case ofVersions:
		return c.isBookkeeping(at, v)
	case ofDrift:
		return c.isSameAsManifest(at, v) || isSystemOwned(c.resource, at) || at.is("status")
	default:
		return c.isSameAsManifest(at, v)
	}
}

// isSameAsManifest ignores the fields that the API server assigns to every object. It ignores the name too, because another
// name with the reserved prefix is also reserved.
func (c *comparison) isSameAsManifest(at *path, v versions) bool {
	return c.isBookkeeping(at, v) || at.is("metadata", "uid") || at.is("metadata", "creationTimestamp") ||
		at.is("metadata", "name") || isRules(c.resource, at) && equalRules(v.old, v.new)
}

func pathsOf(changes []change) []string {
	var paths []string
	for _, change := range changes {
		paths = append(paths, change.at.String())
	}
	return paths
}

func (c *comparison) values(at *path, v versions) {
	if bytes.Equal(v.old, v.new) || v.old.IsEmpty() && v.new.IsEmpty() || c.isOver() || c.isSame(at, v) {
		return
	}
	if c.budget -= len(v.old) + len(v.new); c.budget < 0 {
		c.report(at, v)
		return
	}
	switch {
	case isSecretReferences(c.resource, at) && areBoth(rawjson.Value.IsArray, v.old, v.new):
		c.secretReferences(at, v)
	case areBoth(rawjson.Value.IsObject, v.old, v.new):
		c.objects(at, v)
	case areBoth(rawjson.Value.IsArray, v.old, v.new):
		c.lists(at, v)
	case !rawjson.EqualText(v.old, v.new) && !isFalseDefault(at, v.old, v.new):
		c.report(at, v)
	}
}

// areBoth reports whether both values have a form. An empty value has every form, unless both are empty.
func areBoth(form func(rawjson.Value) bool, a, b rawjson.Value) bool {
	return form(a) && (form(b) || b.IsEmpty()) || form(b) && a.IsEmpty()
}

// isFalseDefault reports whether both values of the field immutable are false or absent: the API server treats them alike.
func isFalseDefault(at *path, a, b rawjson.Value) bool {
	isFalse := func(v rawjson.Value) bool { return v.IsEmpty() || string(v) == "false" }
	return at.is("immutable") && isFalse(a) && isFalse(b)
}

func (c *comparison) objects(at *path, v versions) {
	var oldList, wantList [searchedMembers]member // on the stack, for objects of a usual size
	olds, wants := membersOf(oldList[:0], v.old), membersOf(wantList[:0], v.want)
	if len(olds.list) > maxMembers {
		c.report(at, v)
		return
	}
	for key, value := range v.new.Members() {
		if before := olds.take(key); !bytes.Equal(before, value) {
			c.values(&path{parent: at, key: key}, versions{before, value, wants.take(key)})
		}
	}
	for _, left := range olds.list {
		if !left.taken {
			c.values(&path{parent: at, key: left.key}, versions{old: left.value, want: wants.take(left.key)})
		}
	}
}

// lists compares lists of the same length element by element if the elements are objects or lists. It reports a change of any
// other list as one change.
func (c *comparison) lists(at *path, v versions) {
	if c.list == nil {
		c.list = &listField{at: at, v: v}
		defer func() { c.list = nil }()
	}
	var oldList, newList [searchedMembers]rawjson.Value // on the stack, for lists of a usual size
	olds, news := elements(oldList[:0], v.old), elements(newList[:0], v.new)
	if len(olds) != len(news) || len(olds) > maxMembers || !areNested(olds) || !areNested(news) {
		c.report(at, v)
		return
	}
	for i, element := range news {
		if !bytes.Equal(olds[i], element) {
			c.values(&path{parent: at, index: i + 1}, versions{old: olds[i], new: element})
		}
	}
}

func areNested(elements []rawjson.Value) bool {
	return !slices.ContainsFunc(elements, func(e rawjson.Value) bool { return !e.IsObject() && !e.IsArray() })
}

func (c *comparison) report(at *path, v versions) {
	c.changes = append(c.changes, change{at: at, old: v.old, new: v.new, restored: c.isRestored(at, v)})
}

// listField is a list that changes. A write restores it as a whole or not at all.
type listField struct {
	at *path
	v  versions
	// known says that restored is set.
	known, restored bool
}

func (c *comparison) isRestored(at *path, v versions) bool {
	switch {
	case c.purpose != ofVersions || !c.resource.HasManifest() || isSystemOwned(c.resource, at):
		return false
	case c.list == nil:
		return c.equalsManifest(at, v)
	case !c.list.known:
		c.list.known, c.list.restored = true, c.equalsManifest(c.list.at, c.list.v)
	}
	return c.list.restored
}

// equalsManifest reports whether the new value of a field means the same as the manifest's.
func (c *comparison) equalsManifest(at *path, v versions) bool {
	if isRules(c.resource, at) {
		return equalRules(v.want, v.new)
	}
	inner := comparison{resource: c.resource, budget: c.budget}
	inner.values(at, versions{old: v.want, new: v.new})
	c.budget = inner.budget
	return len(inner.changes) == 0 && !inner.isOver()
}

// secretReferences compares only the names of the Secrets that the account lists: all are in its namespace.
func (c *comparison) secretReferences(at *path, v versions) {
	olds, news := referencedNames(v.old), referencedNames(v.new)
	if len(olds) > maxMembers || !slices.Equal(olds, news) {
		c.report(at, v)
	}
}

// referencedNames returns the names in order, and stops after one more than maxMembers.
func referencedNames(references rawjson.Value) []string {
	var names []string
	for reference := range references.Elements() {
		if len(names) > maxMembers {
			break
		}
		name := reference.Get("name")
		if !name.IsString() {
			name = reference // not a reference: it equals only itself
		}
		names = append(names, string(name))
	}
	return names
}

func isRules(resource *reserved.Resource, at *path) bool {
	return at.is("rules") && resource.GVR.Group == "rbac.authorization.k8s.io"
}

func isSecretReferences(resource *reserved.Resource, at *path) bool {
	return at.is("secrets") && resource.IsServiceAccount()
}

// isSystemOwned reports whether only the control plane writes the field. No other client can restore it, whatever the value.
func isSystemOwned(resource *reserved.Resource, at *path) bool {
	return slices.ContainsFunc(resource.SystemFields(), at.startsWith)
}

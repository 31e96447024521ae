// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/review"
)

// Policy decides over writes to one reserved set. It is immutable and safe for concurrent use.
type Policy struct {
	// Set is what is reserved. A nil Set knows no kind, so that everything is denied.
	Set *reserved.Set
	// Mode applies to the whole set.
	Mode Mode
	// Writers are the identities of the control plane.
	Writers Writers
}

// write is a readable request that concerns a reserved resource, with all that the rules look at.
type write struct {
	*review.Request
	resource *reserved.Resource
	// old and new are what the object is known by before and after; zero where there is no such object.
	old, new reserved.Identity
	changes  []change
}

// Case is one request, read and compared once. Its methods are pure and may be called concurrently.
type Case struct {
	policy *Policy
	write  *write
	// readable is false for a request that cannot be judged.
	readable bool
}

// Review reads a request and compares its objects. The Case shares the bytes of the request.
func (p *Policy) Review(request *review.Request) *Case {
	w := newWrite(request)
	c := &Case{policy: p, write: w, readable: p.isReadable(w)}
	if c.readable {
		if w.resource = p.concerned(w); w.resource != nil {
			w.compare()
		}
	}
	return c
}

// Lookups returns the facts that must be looked up before Decide; nil for most requests.
func (c *Case) Lookups() []Lookup {
	if !c.readable || c.write.resource == nil {
		return nil
	}
	return c.policy.lookups(c.write)
}

// Decide returns the decision: the first rule that fits. holds says that all Lookups hold; it is false where there is none,
// or one of them could not be answered.
func (c *Case) Decide(holds bool) Decision {
	p, w := c.policy, c.write
	switch {
	case !c.readable:
		return Deny(Unreadable)
	case w.resource == nil:
		return Decision{Allowed: true, Reason: NotReserved}
	case w.Operation == update && len(w.changes) == 0:
		return w.allow(NoChange, "")
	case p.isSystemWrite(w, holds):
		return w.allow(SystemWrite, "")
	case p.isNamespaceGoing(w, holds):
		return w.allow(NamespaceTerminating, WouldDeny)
	case w.isRestoration():
		return w.allow(Restoration, Restored)
	// An active unlock comes here: allow, and record it.
	case p.Mode == Observe:
		return w.allow(w.denialReason(), WouldDeny)
	default:
		return w.decide(Decision{Reason: w.denialReason(), Outcome: Denied})
	}
}

const (
	create   = "CREATE"
	update   = "UPDATE"
	deletion = "DELETE"
)

func newWrite(request *review.Request) *write {
	return &write{
		Request: request, old: reserved.IdentityOf(request.OldObject), new: reserved.IdentityOf(request.Object),
	}
}

// isReadable says that the request has all that its operation needs, and nothing that is unknown. An object without a name
// would pass for one that is not reserved.
func (p *Policy) isReadable(w *write) bool {
	if p.Set == nil || !p.Set.Knows(w.GVR) || w.Subresource != "" {
		return false
	}
	switch w.Operation {
	case create:
		return w.new.Name != "" && w.OldObject.IsEmpty()
	case update:
		return w.new.Name != "" && w.old.Name != ""
	case deletion:
		return w.old.Name != "" && w.Object.IsEmpty()
	default:
		return false
	}
}

// concerned returns the reserved resource that a readable write concerns, or nil where there is none.
func (p *Policy) concerned(w *write) *reserved.Resource {
	resource := p.Set.Find(w.GVR, w.old, w.new)
	if resource != nil && resource.Guard == reserved.GuardExistence && w.Operation != deletion {
		return nil
	}
	return resource
}

func (w *write) compare() {
	switch {
	case w.Operation == update:
		w.changes = compareVersions(w.resource, w.OldObject, w.Object)
	case w.Operation == create && w.resource.HasManifest():
		w.changes = compareWithManifest(w.resource, w.Object)
	}
}

// maxRestored bounds the fields that one restoration may change: each is looked up in the object.
const maxRestored = 1024

// isRestoration says that the write leaves every field that it changes as the manifest has it. What stood there before and
// is left alone does not count, so that one mistake can be put right after the other.
func (w *write) isRestoration() bool {
	switch w.Operation {
	case create:
		return w.resource.HasManifest() && w.new.Name == w.resource.Name && len(w.changes) == 0
	case update:
		return w.resource.HasManifest() && !w.mints() && !w.completesDeletion() && len(w.changes) <= maxRestored &&
			all(w.changes, func(c change) bool { return restores(w.resource, w.Object, c) })
	default:
		return false
	}
}

// mints says that the write makes a Secret ask for a credential of the reserved account. The reserved token Secret itself
// may be made to.
func (w *write) mints() bool {
	return w.resource.IsTokenSecret() && w.new.Account == w.resource.Account &&
		w.old.Account != w.resource.Account && w.new.Name != w.resource.Name
}

// completesDeletion says that the update takes away what holds up the deletion of an object that is being deleted. It
// looks like a restoration, as the manifest has no finalizers.
func (w *write) completesDeletion() bool {
	return !w.OldObject.Get("metadata", "deletionTimestamp").IsEmpty() &&
		w.Object.Get("metadata", "finalizers").IsEmpty() && w.Object.Get("spec", "finalizers").IsEmpty()
}

func (w *write) denialReason() Reason {
	switch {
	case w.Operation == deletion:
		return ReservedDelete
	case w.mints():
		return TokenMint
	case w.Operation == create:
		return ForeignCreate
	case w.completesDeletion():
		return ReservedDelete
	default:
		return ReservedUpdate
	}
}

func (w *write) allow(reason Reason, outcome Outcome) Decision {
	return w.decide(Decision{Allowed: true, Reason: reason, Outcome: outcome})
}

func (w *write) decide(d Decision) Decision {
	d.Resource, d.Object, d.Changed = w.resource, w.new, pathsOf(w.changes)
	if w.Operation == deletion {
		d.Object = w.old
	}
	return d
}

// all reports whether there are changes, and all of them satisfy f.
func all(changes []change, f func(change) bool) bool {
	for _, change := range changes {
		if !f(change) {
			return false
		}
	}
	return len(changes) > 0
}

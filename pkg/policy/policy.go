// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
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
	*Request
	resource *reserved.Resource
	// old and new are what the object is known by before and after; zero where there is no such object.
	old, new reserved.Identity
	changes  []change
	// complete says that changes are all that there are.
	complete bool
	// owners are the field managers that the write makes owners of fields that only the control plane writes.
	owners []owner
}

// permit is why a write is allowed, if the lookups hold.
type permit struct {
	reason Reason
	// outcome is empty for a write that needs no record.
	outcome v1alpha1.Outcome
	lookups []Lookup
}

// holds reports whether all lookups hold that the record, or else the permit, rests on.
func (p permit) holds(holds []bool, forRecord bool) bool {
	for i, lookup := range p.lookups {
		if lookup.ForRecord == forRecord && (i >= len(holds) || !holds[i]) {
			return false
		}
	}
	return true
}

// Case is one request, read and compared once. Its methods are pure and may be called concurrently.
type Case struct {
	mode  Mode
	write *write
	// readable is false for a request that cannot be judged.
	readable bool
	// permit is the first rule that allows the write; without a reason where none does.
	permit permit
}

// Review reads a request and compares its objects, in time linear in their size. The Case shares the bytes of the request.
func (p *Policy) Review(request *Request) *Case {
	w := newWrite(request)
	c := &Case{mode: p.Mode, write: w, readable: p.isReadable(w)}
	if !c.readable {
		return c
	}
	if w.resource = p.reservedBy(w); w.resource != nil {
		w.compare()
		c.permit = p.permit(w)
	}
	return c
}

// permit returns the first rule that allows the write.
func (p *Policy) permit(w *write) permit {
	if w.Operation == admissionv1.Update && len(w.changes) == 0 && len(w.owners) == 0 {
		return permit{reason: NoChange}
	}
	if rule, fits := p.systemWrite(w); fits {
		return rule
	}
	if rule, fits := p.namespaceEnd(w); fits {
		return rule
	}
	if w.isRestoration() {
		return permit{reason: Restoration, outcome: v1alpha1.Restored, lookups: w.restorationLookups()}
	}
	return permit{} // an active unlock comes here
}

// Lookups returns the facts that the decision rests on; nil for most requests.
func (c *Case) Lookups() []Lookup { return c.permit.lookups }

// Decide returns the decision. holds says of each of Lookups whether it holds; one that is missing does not.
func (c *Case) Decide(holds []bool) Decision {
	w := c.write
	switch {
	case !c.readable:
		return Deny(Unreadable)
	case w.resource == nil:
		return Decision{Allowed: true, Reason: NotReserved}
	case c.permit.reason != "" && c.permit.holds(holds, false):
		if !c.permit.holds(holds, true) {
			return w.allow(Unconfirmed, "")
		}
		return w.allow(c.permit.reason, c.permit.outcome)
	case c.mode == Observe:
		return w.allow(w.denialReason(), v1alpha1.WouldDeny)
	default:
		return w.decide(Decision{Reason: w.denialReason(), Outcome: v1alpha1.Denied})
	}
}

func newWrite(request *Request) *write {
	return &write{
		Request: request, old: reserved.IdentityOf(request.OldObject), new: reserved.IdentityOf(request.Object),
	}
}

// isReadable reports whether the request has all parts that its operation needs, and no unknown part. An object without a name
// would look like one that is not reserved.
func (p *Policy) isReadable(w *write) bool {
	if p.Set == nil || !p.Set.Knows(w.GVR) || w.Subresource != "" {
		return false
	}
	switch w.Operation {
	case admissionv1.Create:
		return w.new.Name != "" && w.OldObject.IsEmpty()
	case admissionv1.Update:
		return w.new.Name != "" && w.old.Name != ""
	case admissionv1.Delete:
		return w.old.Name != "" && w.Object.IsEmpty()
	default:
		return false
	}
}

// reservedBy returns the reserved resource that a readable write is about, or nil.
func (p *Policy) reservedBy(w *write) *reserved.Resource {
	resource := p.Set.Find(w.GVR, w.old, w.new)
	if resource == nil || !resource.Guards(w.Operation) {
		return nil
	}
	return resource
}

func (w *write) compare() {
	if w.Operation == admissionv1.Delete {
		return
	}
	w.owners = newOwners(w.resource, w.OldObject.Get("metadata", "managedFields"), w.Object.Get("metadata", "managedFields"))
	switch {
	case w.Operation == admissionv1.Update:
		w.changes, w.complete = compareVersions(w.resource, w.OldObject, w.Object)
	case w.Operation == admissionv1.Create && w.resource.HasManifest():
		w.changes = compareWithManifest(w.resource, w.Object)
	}
}

// isRestoration reports whether every changed field afterwards equals the manifest. Fields that the write leaves alone do not
// count, so that a user can correct one field after the other.
func (w *write) isRestoration() bool {
	switch w.Operation {
	case admissionv1.Create:
		return w.resource.HasManifest() && w.new.Name == w.resource.Name && len(w.changes) == 0 && len(w.owners) == 0
	case admissionv1.Update:
		return w.resource.HasManifest() && w.complete && len(w.owners) == 0 && !w.mints() && !w.completesDeletion() &&
			!slices.ContainsFunc(w.changes, func(c change) bool { return !c.restored })
	default:
		return false
	}
}

// restorationLookups makes sure that a record is about a write that an API server was asked for: other callers of the guard do
// not know the UID of the live object. And a restored token Secret is one more credential if another one is in use.
func (w *write) restorationLookups() []Lookup {
	lookups := []Lookup{w.isLive(w.new)}
	if w.asksForToken() {
		lookups = append(lookups, Lookup{
			Subject: OnlyToken, Namespace: w.new.Namespace, Account: w.new.Account, Name: w.new.Name,
		})
	}
	return lookups
}

// isLive asks whether the object as it was before the write is the live one.
func (w *write) isLive(object reserved.Identity) Lookup {
	return Lookup{
		Subject: Live, ForRecord: true, GVR: w.GVR, Namespace: object.Namespace, Name: object.Name,
		UID: w.OldObject.Get("metadata", "uid").Text(),
	}
}

// asksForToken says that after the write, and not before, a Secret asks for a credential of the reserved account.
func (w *write) asksForToken() bool {
	return w.resource.IsTokenSecret() && w.new.Account == w.resource.Account && w.old.Account != w.resource.Account
}

// mints says that the write makes a Secret ask for one more credential of the reserved account: any but the reserved token
// Secret, which may be made to while no other is in use.
func (w *write) mints() bool {
	return w.asksForToken() && w.new.Name != w.resource.Name
}

// completesDeletion reports whether the update removes the last finalizer of an object that is being deleted. It looks like a
// restoration, as the manifest has no finalizers.
func (w *write) completesDeletion() bool {
	return !w.OldObject.Get("metadata", "deletionTimestamp").IsEmpty() &&
		w.Object.Get("metadata", "finalizers").IsEmpty() && w.Object.Get("spec", "finalizers").IsEmpty()
}

func (w *write) denialReason() Reason {
	switch {
	case w.Operation == admissionv1.Delete:
		return ReservedDelete
	case w.mints(), w.asksForToken() && w.isRestoration():
		return TokenMint
	case w.Operation == admissionv1.Create:
		return ReservedCreate
	case w.completesDeletion():
		return ReservedDelete
	default:
		return ReservedUpdate
	}
}

func (w *write) allow(reason Reason, outcome v1alpha1.Outcome) Decision {
	return w.decide(Decision{Allowed: true, Reason: reason, Outcome: outcome})
}

func (w *write) decide(d Decision) Decision {
	id := w.new
	if w.Operation == admissionv1.Delete {
		id = w.old
	}
	d.Resource, d.Changed = w.resource, w.changedPaths()
	d.Object = w.resource.Reference(id.Namespace, text.Printable(id.Name, maxName))
	return d
}

// changedPaths names the managed fields only where nothing else is wrong with the write: who writes a field owns it.
func (w *write) changedPaths() []string {
	paths := pathsOf(w.changes)
	isWrong := func(c change) bool { return !c.restored }
	if len(w.owners) > 0 && !slices.ContainsFunc(w.changes, isWrong) {
		paths = append(paths, "metadata.managedFields")
	}
	return paths
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Policy decides about writes to one reserved set. It is immutable and safe for concurrent use.
type Policy struct {
	// Set holds the reserved resources. A nil Set knows no kind, so every write is denied.
	Set *reserved.Set
	// Mode applies to the whole set.
	Mode Mode
	// SideDoors applies to side doors where Mode is Enforce.
	SideDoors Mode
	// Unlocks are the settings of unlocks.
	Unlocks UnlockRules
	// Writers are the identities of the control plane.
	Writers Writers
}

// write is a request with the results of its comparison.
type write struct {
	*Request
	resource *reserved.Resource
	// via says how the write uses the resource as a side door; empty for a write to the resource itself.
	via string
	// old and new identify the object before and after the write; zero if there is no such object.
	old, new reserved.Identity
	changes  []change
	// complete says that changes has every change.
	complete bool
	// owners are the result of newOwners.
	owners []owner
}

// permit is the reason to allow a write, if the lookups hold.
type permit struct {
	reason Reason
	// outcome is empty for a write that needs no record.
	outcome v1alpha1.Outcome
	lookups []Lookup
}

// holds reports whether all lookups with this ForRecord hold.
func (p permit) holds(holds []bool, forRecord bool) bool {
	for i, lookup := range p.lookups {
		if lookup.ForRecord == forRecord && (i >= len(holds) || !holds[i]) {
			return false
		}
	}
	return true
}

// Facts are what a decision rests on besides the request and the reserved set.
type Facts struct {
	// Holds says of each of Case.Lookups whether it holds. One that is missing does not.
	Holds []bool
	// Now is the time by which unlocks and exemptions end.
	Now metav1.Time
	// Unlocks are all unlocks, in any state. A replica that has not seen them lately has none.
	Unlocks []v1alpha1.Unlock
	// Guard is the user name of the guard; "" while it is not known.
	Guard string
}

// Case is one request, read and compared once. Its methods are pure and may be called concurrently.
type Case struct {
	policy *Policy
	write  *write
	// readable is false for a request that cannot be judged.
	readable bool
	// permit is the first rule that allows the write; zero if no rule does.
	permit permit
}

// Review reads a request and compares its objects, in linear time. The Case shares the bytes of the request.
func (p *Policy) Review(request *Request) *Case {
	w := &write{Request: request, old: reserved.IdentityOf(request.OldObject), new: reserved.IdentityOf(request.Object)}
	c := &Case{policy: p, write: w, readable: p.isReadable(w)}
	if c.readable {
		w.resource = p.Set.FindGuarded(w.Operation, w.GVR, w.old, w.new)
	}
	if w.resource != nil {
		w.compare()
		c.permit = p.permit(w)
		return c
	}
	if d := doorOf(w); d != noDoor && p.Set != nil {
		c.readable = true
		if p.SideDoors != Off {
			w.resource, w.via = p.reach(w, d)
		}
	}
	return c
}

// permit returns the first rule that allows the write; zero if no rule does.
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
		outcome := v1alpha1.Restored
		if w.Operation == admissionv1.Create {
			outcome = v1alpha1.Authorized
		}
		return permit{reason: Restoration, outcome: outcome, lookups: w.restorationLookups()}
	}
	return permit{}
}

// Lookups returns the lookups that the decision depends on; nil for most requests.
func (c *Case) Lookups() []Lookup { return c.permit.lookups }

// Decide returns the decision.
func (c *Case) Decide(facts Facts) Decision {
	w := c.write
	switch {
	case c.policy.Set != nil && w.GVR.GroupResource() == UnlockResource().GroupResource():
		return w.decideOwn(c.policy.unlockProblem(w.Request, facts), UnlockRejected, UnlockAccepted)
	case c.policy.Set != nil && w.GVR.GroupResource() == RecordResource().GroupResource():
		return w.decideOwn(acknowledgementProblem(w.Request, facts), AckRejected, AckAccepted)
	case !c.readable:
		return Deny(Unreadable)
	case w.resource == nil:
		return Decision{Allowed: true, Reason: NotReserved}
	case c.permit.reason != "" && c.permit.holds(facts.Holds, false):
		if !c.permit.holds(facts.Holds, true) {
			return w.allow(Unconfirmed, "")
		}
		return w.allow(c.permit.reason, c.permit.outcome)
	}
	if decision, granted := c.policy.grant(w, facts); granted {
		return decision
	}
	if c.policy.Mode == Observe || w.via != "" && c.policy.SideDoors == Observe {
		return w.allow(c.denialReason(facts), v1alpha1.WouldDeny)
	}
	return w.decide(Decision{Reason: c.denialReason(facts), Outcome: v1alpha1.Denied})
}

// denialReason returns ReservedCreate for each creation of a retired resource, also of a token Secret.
func (c *Case) denialReason(facts Facts) Reason {
	at := slices.IndexFunc(c.permit.lookups, func(lookup Lookup) bool { return lookup.Subject == NotRetired })
	if at >= 0 && at < len(facts.Holds) && !facts.Holds[at] {
		return ReservedCreate
	}
	return c.write.denialReason()
}

// isReadable reports whether the request has all parts that its operation needs, and is of a known kind. An object without a
// name is unreadable: it would match no reserved resource.
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

// isRestoration reports whether the new value of every changed field equals the manifest's. It ignores unchanged fields, so a
// user can correct one field after the other.
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

// restorationLookups returns the lookups of a restoration. A record needs the UID of the live object, which a caller that is not
// an API server does not know. A restored token Secret is an additional credential if another one is in use. What was
// retired cannot be restored.
func (w *write) restorationLookups() []Lookup {
	lookups := []Lookup{w.isLive(w.new)}
	if w.Operation == admissionv1.Create {
		lookups = append(lookups, Lookup{Subject: NotRetired, Name: w.resource.Reservation})
	}
	if w.asksForToken() {
		lookups = append(lookups, Lookup{
			Subject: OnlyToken, Namespace: w.new.Namespace, Account: w.new.Account, Name: w.new.Name,
		})
	}
	return lookups
}

// isLive returns the lookup whether the old object of the write is the live one.
func (w *write) isLive(object reserved.Identity) Lookup {
	return Lookup{
		Subject: Live, ForRecord: true, GVR: w.GVR, Namespace: object.Namespace, Name: object.Name,
		UID: w.OldObject.Get("metadata", "uid").Text(),
	}
}

// asksForToken reports whether the write makes a Secret request a token of the reserved account.
func (w *write) asksForToken() bool {
	return w.resource.IsTokenSecret() && w.new.Account == w.resource.Account && w.old.Account != w.resource.Account
}

// mints reports whether the write makes a Secret with another name than the reserved one request a token. The reserved token
// Secret may request one while no other is in use.
func (w *write) mints() bool {
	return w.asksForToken() && w.new.Name != w.resource.Name
}

// completesDeletion reports whether the update removes the last finalizer of a terminating object. Such an update looks like a
// restoration, because the manifest has no finalizers.
func (w *write) completesDeletion() bool {
	return !w.OldObject.Get("metadata", "deletionTimestamp").IsEmpty() &&
		w.Object.Get("metadata", "finalizers").IsEmpty() && w.Object.Get("spec", "finalizers").IsEmpty()
}

func (w *write) denialReason() Reason {
	switch {
	case w.via != "":
		return SideDoor
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
	d.Resource, d.Changed, d.Object, d.Via = w.resource, w.changedPaths(), w.reference(), w.via
	d.Object.Name = text.Printable(d.Object.Name, maxName)
	return d
}

// reference identifies the written object.
func (w *write) reference() v1alpha1.ObjectReference {
	id := w.new
	if w.via != "" {
		return v1alpha1.ObjectReference{
			Group: w.GVR.Group, Resource: w.GVR.Resource, Namespace: w.Namespace, Name: cmp.Or(id.Name, w.Name),
		}
	}
	if w.Operation == admissionv1.Delete {
		id = w.old
	}
	return w.resource.Reference(id.Namespace, id.Name)
}

// changedPaths returns the paths of the changes. It adds managedFields only if no change is wrong: a write that changes a field
// always owns it.
func (w *write) changedPaths() []string {
	paths := pathsOf(w.changes)
	isWrong := func(c change) bool { return !c.restored }
	if len(w.owners) > 0 && !slices.ContainsFunc(w.changes, isWrong) {
		paths = append(paths, "metadata.managedFields")
	}
	return paths
}

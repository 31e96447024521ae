// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// UnlockResource returns the type of unlocks.
func UnlockResource() schema.GroupVersionResource {
	return v1alpha1.GroupVersion().WithResource("unlocks")
}

// UnlockRules are the settings of unlocks.
type UnlockRules struct {
	// MaxDuration bounds the time from the creation of an Unlock to its end. Zero allows no Unlock.
	MaxDuration metav1.Duration
	// RequireApproval makes an Unlock allow nothing until a user other than its requester has approved it.
	RequireApproval bool
}

// The lengths of an Unlock's reason, in characters.
const (
	minReason = 10
	maxReason = 500
)

// IsReason reports whether a text is as long as the reason of an Unlock must be: 10 to 500 characters.
func IsReason(text string) bool {
	length := utf8.RuneCountInString(text)
	return minReason <= length && length <= maxReason
}

// StateOf returns the state of an Unlock at a time. It reads nothing that the guard or a user writes into the status, except the
// approval.
func (r UnlockRules) StateOf(unlock *v1alpha1.Unlock, now metav1.Time) v1alpha1.UnlockState {
	spec := &unlock.Spec
	switch {
	case r.problem(unlock) != "":
		return v1alpha1.UnlockInvalid
	case spec.Closed || unlock.DeletionTimestamp != nil:
		return v1alpha1.UnlockClosed
	case !now.Before(&spec.ExpiresAt):
		return v1alpha1.UnlockExpired
	case r.RequireApproval && (unlock.Status.ApprovedBy == "" || unlock.Status.ApprovedBy == spec.RequestedBy):
		return v1alpha1.UnlockPending
	default:
		return v1alpha1.UnlockOpen
	}
}

// problem says why an Unlock allows nothing whatever its state is; "" if nothing is wrong with it. An Unlock can have a problem if
// it was created while the API server did not ask the guard, or by an older version.
func (r UnlockRules) problem(unlock *v1alpha1.Unlock) string {
	spec := &unlock.Spec
	lifetime := spec.ExpiresAt.Sub(unlock.CreationTimestamp.Time)
	switch {
	case spec.RequestedBy == "" || unlock.CreationTimestamp.IsZero():
		return "spec.requestedBy and metadata.creationTimestamp must be set"
	case !IsReason(spec.Reason):
		return fmt.Sprintf("spec.reason must have %d to %d characters", minReason, maxReason)
	case lifetime <= 0:
		return "spec.expiresAt must be after the creation"
	case lifetime > r.MaxDuration.Duration:
		return fmt.Sprintf("spec.expiresAt must be at most %s after the creation", r.MaxDuration.Duration)
	}
	return ""
}

// unlocks reports whether an Unlock covers the user, the resource and the operation of a write.
func (w *write) unlocks(unlock *v1alpha1.Unlock) bool {
	spec := &unlock.Spec
	return CoversResource(unlock, w.resource, w.reference().String()) && slices.Contains(spec.Allowed(), w.Operation) &&
		slices.Contains(spec.Subjects(), w.User.Name)
}

// CoversResource reports whether an Unlock, in any state, covers some write to an object of the resource.
func CoversResource(unlock *v1alpha1.Unlock, resource *reserved.Resource, object string) bool {
	spec := &unlock.Spec
	isNamed := slices.Contains(spec.Resources, object) || slices.Contains(spec.Resources, resource.String())
	return spec.Reservation == resource.Reservation && (len(spec.Resources) == 0 || isNamed)
}

// grant returns the decision for a write that an open Unlock or an exemption covers.
func (p *Policy) grant(w *write, facts Facts) (Decision, bool) {
	for i := range facts.Unlocks {
		unlock := &facts.Unlocks[i]
		if w.unlocks(unlock) && p.Unlocks.StateOf(unlock, facts.Now) == v1alpha1.UnlockOpen {
			d := w.allow(Unlocked, v1alpha1.Unlocked)
			d.Unlock, d.Justification = unlock.Name, unlock.Spec.Reason
			return d, true
		}
	}
	for _, exemption := range p.Set.Exemptions(w.resource.Reservation) {
		if exemption.Covers(w.User.Name, w.User.Groups, w.Operation, facts.Now) {
			d := w.allow(Exemption, v1alpha1.Exempted)
			d.Justification = exemption.Reason
			return d, true
		}
	}
	return Decision{}, false
}

// decideOwn decides over a write to an Unlock or to an audit record, with the reason of a denial, and of an allowed write.
func (w *write) decideOwn(problem string, rejected, accepted Reason) Decision {
	name := cmp.Or(w.Name, w.new.Name, w.old.Name) // the request has none if the API server generates it
	d := Decision{Reason: rejected, Outcome: v1alpha1.Denied, Problem: problem}
	if problem == "" {
		d = Decision{Allowed: true, Reason: accepted}
	}
	d.Object = v1alpha1.ObjectReference{Group: w.GVR.Group, Resource: w.GVR.Resource, Name: text.Printable(name, maxName)}
	return d
}

// unlockProblem says why a write to an Unlock is denied; "" for one that is allowed.
func (p *Policy) unlockProblem(r *Request, facts Facts) string {
	unlock, old := &v1alpha1.Unlock{}, &v1alpha1.Unlock{}
	isSame := r.GVR == UnlockResource()
	if !isSame || decodeResource(r.Object, unlock, r.Operation == admissionv1.Delete) != nil ||
		decodeResource(r.OldObject, old, r.Operation == admissionv1.Create) != nil {
		return "the request cannot be read"
	}
	switch {
	case r.Operation == admissionv1.Create && r.Subresource == "":
		return p.creationProblem(unlock, r, facts)
	case r.Operation == admissionv1.Update && r.Subresource == "":
		return updateProblem(old, unlock)
	case r.Operation == admissionv1.Update && r.Subresource == "status":
		return p.statusProblem(old, unlock, r, facts)
	case r.Operation == admissionv1.Delete && r.Subresource == "":
		return p.deletionProblem(old, r, facts)
	default:
		return "the operation or the subresource is not known"
	}
}

// decodeResource decodes an object that must be absent or present.
func decodeResource(object []byte, into any, absent bool) error {
	isAbsent := len(object) == 0 || string(object) == "null"
	if isAbsent != absent {
		return errors.New("an object is missing or superfluous")
	}
	if absent {
		return nil
	}
	return json.Unmarshal(object, into)
}

func (p *Policy) creationProblem(unlock *v1alpha1.Unlock, r *Request, facts Facts) string {
	spec := &unlock.Spec
	created := unlock.DeepCopy()
	created.CreationTimestamp = facts.Now // not what the client wrote
	reservation := p.Set.Reservation(spec.Reservation)
	switch {
	case spec.RequestedBy != r.User.Name:
		return fmt.Sprintf("spec.requestedBy must be %q, the user that creates it", text.Printable(r.User.Name, maxName))
	case reservation == nil:
		return fmt.Sprintf("spec.reservation: no reservation is called %q", text.Printable(spec.Reservation, maxName))
	case slices.ContainsFunc(spec.Resources, func(name string) bool { return !isReserved(reservation, name) }):
		return fmt.Sprintf("spec.resources: must be resources of the reservation, such as %s", reservation.Resources[0])
	case slices.ContainsFunc(spec.Operations, func(o admissionv1.Operation) bool { return !slices.Contains(reserved.Operations(), o) }):
		return "spec.operations: must be CREATE, UPDATE or DELETE"
	}
	return p.Unlocks.problem(created)
}

// isReserved reports whether a name is the text of a resource of the reservation, or of an object that such a resource covers.
func isReserved(reservation *reserved.Reservation, name string) bool {
	object := v1alpha1.ParseObjectReference(name)
	return slices.ContainsFunc(reservation.Resources, func(resource *reserved.Resource) bool {
		isType := resource.GVR.GroupResource() == object.GroupResource()
		return name == resource.String() || isType && resource.Covers(reserved.Identity{Namespace: object.Namespace, Name: object.Name})
	})
}

// updateProblem allows an update that changes the metadata or closes the Unlock.
func updateProblem(old, unlock *v1alpha1.Unlock) string {
	spec := unlock.Spec
	spec.Closed = old.Spec.Closed
	switch {
	case old.Spec.Closed && !unlock.Spec.Closed:
		return "a closed unlock cannot be opened again: create another one"
	case !isSameUnlock(&spec, &old.Spec):
		return "spec is immutable, except that closed can become true: close it and create another one"
	}
	return ""
}

// isSameUnlock compares times as times, because a time has several texts.
func isSameUnlock(a, b *v1alpha1.UnlockSpec) bool {
	left, right := a.DeepCopy(), b.DeepCopy()
	same := left.ExpiresAt.Equal(&right.ExpiresAt)
	left.ExpiresAt = right.ExpiresAt
	return same && reflect.DeepEqual(left, right)
}

// statusProblem allows the guard to write what grants nothing, and a user other than the requester to approve.
func (p *Policy) statusProblem(old, unlock *v1alpha1.Unlock, r *Request, facts Facts) string {
	isApproval := unlock.Status.ApprovedBy != old.Status.ApprovedBy
	rest := unlock.Status
	rest.ApprovedBy = old.Status.ApprovedBy
	state := p.Unlocks.StateOf(old, facts.Now)
	switch {
	case !reflect.DeepEqual(rest, old.Status) && (facts.Guard == "" || r.User.Name != facts.Guard):
		return "only the guard writes status, except for status.approvedBy"
	case !isApproval:
		return ""
	case old.Status.ApprovedBy != "":
		return fmt.Sprintf("it is approved by %q already", text.Printable(old.Status.ApprovedBy, maxName))
	case unlock.Status.ApprovedBy != r.User.Name:
		return fmt.Sprintf("status.approvedBy must be %q, the user that approves it", text.Printable(r.User.Name, maxName))
	case r.User.Name == old.Spec.RequestedBy:
		return "the requester cannot approve it: ask another user"
	case state.IsOver():
		return fmt.Sprintf("its state is %s: create another one", state)
	}
	return ""
}

// deletionProblem keeps every Unlock as evidence until the guard deletes it with the audit records of its time.
func (p *Policy) deletionProblem(old *v1alpha1.Unlock, r *Request, facts Facts) string {
	state := p.Unlocks.StateOf(old, facts.Now)
	if facts.Guard == "" || r.User.Name != facts.Guard || !state.IsOver() {
		return "unlocks are kept for the audit: to end one, set spec.closed"
	}
	return ""
}

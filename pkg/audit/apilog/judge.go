// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Kind is what an event tells about a write to a reserved resource.
type Kind string

// Kinds.
const (
	// Owed: the guard decided, and a record must count it.
	Owed Kind = "Owed"
	// Passed: the guard let the write pass, or need not be asked, and makes no record of such a write.
	Passed Kind = "Passed"
	// Unguarded: the write was made, and the guard was not asked.
	Unguarded Kind = "Unguarded"
	// Failed: the write was refused, because the API server could not reach the guard.
	Failed Kind = "Failed"
	// DryRun: nothing was to be stored, and the guard makes no record.
	DryRun Kind = "DryRun"
	// Unclear: the log does not say enough.
	Unclear Kind = "Unclear"
)

// Reasons of unguarded writes. Decisions of the guard have other reasons.
const (
	// NotAsked: no registration sent the write to the guard.
	NotAsked = "GuardNotAsked"
	// NotReached: the API server could not call the guard, and continued without it, as failurePolicy Ignore says.
	NotReached = "GuardNotReached"
)

// Finding is what one event tells.
type Finding struct {
	Kind Kind
	// Event is the write, with the source Import. Its outcome is empty unless Kind is Owed or Unguarded. The log
	// does not hold the paths of changed fields.
	Event audit.Event
	// Record is the name of the record, as the guard annotated the event; "" if it made no record.
	Record string
}

// Judge returns what an event says about writes to reserved resources; nil if it is about none. There are several findings if
// the API server sent the write to several webhooks of the guard, or if the write deleted several objects of a collection.
// Judge reads only the last stage of a request. It is a pure function.
func Judge(set *reserved.Set, event *Event) []Finding {
	if !isWrite(event.Verb) || event.Stage != "ResponseComplete" && event.Stage != "Panic" {
		return nil
	}
	findings := event.asked()
	if len(findings) == 0 {
		findings = event.unasked(set)
	}
	if event.DryRun && len(findings) > 0 {
		return []Finding{event.finding(DryRun, findings[0].Event.Object)}
	}
	return findings
}

func isWrite(verb string) bool {
	switch verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	default:
		return false
	}
}

func (e *Event) isDeletion() bool { return strings.HasPrefix(e.Verb, "delete") }

func (e *Event) succeeded() bool {
	return e.Code >= http.StatusOK && e.Code < http.StatusMultipleChoices
}

// asked judges a write that the API server sent, or tried to send, to the guard.
func (e *Event) asked() []Finding {
	var findings []Finding
	for _, decision := range e.Decisions {
		findings = append(findings, e.decided(decision))
	}
	deniedIt := func(d Decision) bool { return d.Entry == e.Denier && d.Outcome == v1alpha1.Denied }
	if e.Denier != "" && !slices.ContainsFunc(e.Decisions, deniedIt) {
		// The event holds only the first of several decisions of one webhook, such as those about the items of a collection.
		findings = append(findings, e.finding(Unclear, e.object()))
	}
	if e.Failed != "" {
		findings = append(findings, e.finding(Failed, e.object()))
	}
	if len(e.FailedOpen) > 0 && len(e.Decisions) == 0 && e.succeeded() {
		findings = append(findings, e.unguarded(NotReached, e.object()))
	}
	return findings
}

// decided judges what one webhook of the guard decided. Of an annotation that two admissions of one request set, the API server
// keeps the first: the reason may be that of an allowed write, and the outcome and record those of the denial that followed.
func (e *Event) decided(d Decision) Finding {
	finding := e.finding(Owed, cmp.Or(d.Object, e.object()))
	finding.Record, finding.Event.Reason = d.Record, d.Reason
	if slices.Contains(audit.Operations(), d.Operation) {
		finding.Event.Operation = d.Operation
	}
	if e.Denier == d.Entry {
		finding.Event.Message = e.Sentence
	}
	switch {
	case !slices.Contains(v1alpha1.Outcomes(), d.Outcome):
		finding.Kind = Passed
	case d.Record == "" && e.isDeletion():
		finding.Kind = DryRun // every other dry run says so in its query
	default:
		finding.Event.Outcome = d.Outcome
	}
	return finding
}

func (e *Event) operation() admissionv1.Operation {
	switch {
	case e.isDeletion():
		return admissionv1.Delete
	case e.Verb == "create" || e.Code == http.StatusCreated:
		return admissionv1.Create
	default:
		return admissionv1.Update
	}
}

// object is the object as the request itself names it.
func (e *Event) object() v1alpha1.ObjectReference { return e.reference(e.Objects[0]) }

func (e *Event) reference(id reserved.Identity) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{Group: e.GVR.Group, Resource: e.GVR.Resource, Namespace: id.Namespace, Name: id.Name}
}

func (e *Event) finding(kind Kind, object v1alpha1.ObjectReference) Finding {
	return Finding{
		Kind: kind,
		Event: audit.Event{
			Time: e.Time, Operation: e.operation(), Object: object, User: e.User, Source: v1alpha1.SourceImport,
		},
	}
}

func (e *Event) unguarded(reason string, object v1alpha1.ObjectReference) Finding {
	finding := e.finding(Unguarded, object)
	finding.Event.Outcome, finding.Event.Reason = v1alpha1.Unguarded, reason
	finding.Event.Message = "The guard was not asked; found in the API server's audit log, last as event " + e.ID + "."
	return finding
}

// unasked judges a write in whose event the guard does not appear.
func (e *Event) unasked(set *reserved.Set) []Finding {
	if e.Subresource != "" && e.Subresource != "scale" || !e.mayConcern(set) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(e.Objects), func(id reserved.Identity) bool { return id.Name == "" })
	switch {
	case e.Code >= http.StatusInternalServerError:
		return e.undone(set, named)
	case !e.succeeded():
		return nil // another check refused it
	case e.Verb == "deletecollection":
		return e.collection(set, named)
	case len(named) == 0:
		return []Finding{e.finding(Unclear, e.object())} // a generated name, which the level Metadata does not tell
	}
	switch resource := e.concerned(set, named); {
	case resource == nil:
		return nil
	case resource.IsTokenSecret() && e.isAPIServerItself():
		return []Finding{e.finding(Passed, e.reference(named[0]))}
	}
	return []Finding{e.unguarded(NotAsked, e.reference(named[0]))}
}

// concerned returns the reserved resource that the write concerns; nil if there is none.
func (e *Event) concerned(set *reserved.Set, named []reserved.Identity) *reserved.Resource {
	resource := set.Find(e.GVR, named...)
	if resource == nil || !resource.Guards(e.operation()) {
		return nil
	}
	return resource
}

// undone judges a write that broke off: the API server may have stored it or not.
func (e *Event) undone(set *reserved.Set, named []reserved.Identity) []Finding {
	if len(named) > 0 && e.concerned(set, named) == nil {
		return nil
	}
	return []Finding{e.finding(Unclear, e.object())}
}

// collection judges the deletion of a collection. The answer lists the deleted objects, if the log holds it.
func (e *Event) collection(set *reserved.Set, deleted []reserved.Identity) []Finding {
	if len(deleted) == 0 && e.Level != "RequestResponse" {
		return []Finding{e.finding(Unclear, e.object())}
	}
	var findings []Finding
	for _, id := range deleted {
		if set.Find(e.GVR, id) != nil {
			findings = append(findings, e.unguarded(NotAsked, e.reference(id)))
		}
	}
	return findings
}

// mayConcern reports whether the request's type and namespace have a reserved resource. For a deletecollection that selects one
// name, it reports whether that name is reserved.
func (e *Event) mayConcern(set *reserved.Set) bool {
	own := e.Objects[0]
	if name := e.selectedName(); own.Name == "" && name != "" {
		return set.Find(e.GVR, reserved.Identity{Namespace: own.Namespace, Name: name}) != nil
	}
	return slices.ContainsFunc(set.Resources(), func(r *reserved.Resource) bool {
		return r.GVR.GroupResource() == e.GVR.GroupResource() && r.Namespace == own.Namespace &&
			// A generated name has a random end, so it is not an exact name.
			(e.Verb != "create" || own.Name != "" || r.NamePrefix != "" || r.Account != "")
	})
}

// selectedName returns the name that the field selector of a deletecollection asks for; "" if it asks for none.
func (e *Event) selectedName() string {
	_, query, _ := strings.Cut(e.URI, "?")
	values, _ := url.ParseQuery(query) // an unreadable query selects nothing
	selector, err := fields.ParseSelector(values.Get("fieldSelector"))
	if err != nil {
		return ""
	}
	name, _ := selector.RequiresExactMatch("metadata.name")
	return name
}

// isAPIServerItself recognizes the label that the API server writes on a token Secret when its token is used. A match condition
// keeps this write from the guard. The log says whether another client impersonated the API server; a review does not.
func (e *Event) isAPIServerItself() bool {
	return e.Verb == "patch" && !e.Impersonated && e.User.Name == "system:apiserver" && slices.Contains(e.User.Groups, "system:masters")
}

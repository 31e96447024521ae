// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Kind is the result of a write to a reserved resource, according to its event.
type Kind string

// Kinds.
const (
	// Decided: the guard decided, and a record must count the write.
	Decided Kind = "Decided"
	// Passed: the guard allowed the write without a record, or a match condition kept the write from the guard.
	Passed Kind = "Passed"
	// Refused: the guard allowed the write without a record, and the API server refused it.
	Refused Kind = "Refused"
	// Unguarded: the write succeeded without a decision of the guard.
	Unguarded Kind = "Unguarded"
	// Failed: the API server refused the write, because it could not reach the guard.
	Failed Kind = "Failed"
	// DryRun: the write was a dry run, which the guard does not record.
	DryRun Kind = "DryRun"
	// Unclear: the log has not enough information.
	Unclear Kind = "Unclear"
)

// Reasons of unguarded writes. Decisions of the guard have other reasons.
const (
	// NotAsked: no webhook configuration sent the write to the guard.
	NotAsked = "GuardNotAsked"
	// NotReached: the API server could not call the guard, and allowed the write because of failurePolicy Ignore.
	NotReached = "GuardNotReached"
)

// Judgment is the judgment of one write.
type Judgment struct {
	Kind Kind
	// Event is the write, with the source Import. Its outcome is empty unless Kind is Decided or Unguarded. The
	// log does not contain the paths of changed fields.
	Event audit.Event
	// Record is the name of the guard's record, from its annotation; "" if it made none.
	Record string
	// Refused says of a Decided write that the guard allowed it, and that the API server refused it.
	Refused bool
}

// Judge returns the judgments of an event; nil if it concerns no reserved resource, or is not the last stage of its request.
// A write has several judgments if the API server sent it to several webhooks of the guard, or if it deleted a collection. Judge is
// a pure function.
func Judge(set *reserved.Set, event *Event) []Judgment {
	if !isWrite(event.Verb) || event.Stage != "ResponseComplete" && event.Stage != "Panic" {
		return nil
	}
	if event.isReachProbe() {
		return nil
	}
	judgments := event.asked()
	switch {
	case event.Policy != "":
		judgments = []Judgment{event.deniedByPolicy()}
	case len(judgments) == 0:
		judgments = event.unasked(set)
	}
	if event.DryRun && len(judgments) > 0 {
		return []Judgment{event.judgment(DryRun, judgments[0].Event.Object)}
	}
	return judgments
}

// isReachProbe reports whether the write only found out whether API servers reach the guard, which denied it without a decision.
func (e *Event) isReachProbe() bool {
	return e.DryRun && len(e.Decisions) == 0 && e.GVR.GroupResource() == (schema.GroupResource{Resource: "configmaps"}) &&
		e.Objects[0].Name == guardian.Replicas
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

// asked judges a write that the API server sent to the guard, or tried to send.
func (e *Event) asked() []Judgment {
	var judgments []Judgment
	for _, decision := range e.Decisions {
		judgment := e.decided(decision)
		if judgment.Kind == Refused && decision.Webhook == e.Denier {
			continue // a later review of the same write denied it, see below
		}
		judgments = append(judgments, judgment)
	}
	deniedIt := func(d Decision) bool { return d.Webhook == e.Denier && e.isDenied(d) }
	if e.Denier != "" && !slices.ContainsFunc(e.Decisions, deniedIt) {
		// The event holds only the first of several decisions of one webhook, such as those about the items of a collection.
		judgments = append(judgments, e.judgment(Unclear, e.object()))
	}
	if e.Failed != "" {
		judgments = append(judgments, e.judgment(Failed, e.object()))
	}
	if len(e.FailedOpen) > 0 && len(e.Decisions) == 0 && e.succeeded() {
		judgments = append(judgments, e.unguarded(NotReached, e.object()))
	}
	return judgments
}

// isDenied reports whether the decision, or a later one of the same webhook, is a recorded denial.
func (e *Event) isDenied(d Decision) bool {
	return d.Outcome == v1alpha1.Denied || d.Outcome == "" && d.Record != "" && e.Code == http.StatusForbidden
}

// decided judges the decision of one webhook. If two reviews of one request set the same annotation, the API server keeps the
// first. So decision and reason may be those of an allowed write, while the outcome and the record are those of a later denial.
func (e *Event) decided(d Decision) Judgment {
	judgment := e.judgment(Decided, cmp.Or(d.Object, e.object()))
	judgment.Record, judgment.Event.Reason = d.Record, d.Reason
	if slices.Contains(reserved.Operations(), d.Operation) {
		judgment.Event.Operation = d.Operation
	}
	if e.Denier == d.Webhook {
		judgment.Event.Message = e.Sentence
	} else if d.isPolicy() {
		judgment.Event.Message = d.Message
	}
	isDenied := e.isDenied(d)
	if isDenied && d.Decision == "allow" {
		judgment.Event.Reason = "" // of the earlier review
	}
	isRefused := !isDenied && e.Code >= http.StatusBadRequest
	switch {
	case isDenied && d.Outcome == "":
		judgment.Event.Outcome = v1alpha1.Denied
	case !slices.Contains(v1alpha1.Outcomes(), d.Outcome) && isRefused:
		judgment.Kind = Refused
	case !slices.Contains(v1alpha1.Outcomes(), d.Outcome):
		judgment.Kind = Passed
	case d.Record == "" && e.isDeletion() && (d.DryRun || !d.isPolicy()):
		judgment.Kind = DryRun // every other dry run says so in its query
	default:
		judgment.Event.Outcome, judgment.Refused = d.Outcome, isRefused
	}
	return judgment
}

// deniedByPolicy judges a write to an object of the guard itself. The policy of the webhook configuration knows one object only, which the
// deletion of a collection does not name.
func (e *Event) deniedByPolicy() Judgment {
	object := e.object()
	if e.Policy == guardian.RegistrationPolicy {
		object.Name = guardian.WebhookConfiguration
	}
	judgment := e.judgment(Decided, object)
	judgment.Event.Outcome, judgment.Event.Reason, judgment.Event.Message = v1alpha1.Denied, audit.DeniedByPolicy, e.Sentence
	return judgment
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

// object returns the object that the request addresses.
func (e *Event) object() v1alpha1.ObjectReference { return e.reference(e.Objects[0]) }

func (e *Event) reference(id reserved.Identity) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{Group: e.GVR.Group, Resource: e.GVR.Resource, Namespace: id.Namespace, Name: id.Name}
}

func (e *Event) judgment(kind Kind, object v1alpha1.ObjectReference) Judgment {
	return Judgment{
		Kind: kind,
		Event: audit.Event{
			Time: e.Time, Operation: e.operation(), Object: object, User: e.User, Source: v1alpha1.SourceImport,
		},
	}
}

func (e *Event) unguarded(reason string, object v1alpha1.ObjectReference) Judgment {
	judgment := e.judgment(Unguarded, object)
	judgment.Event.Outcome, judgment.Event.Reason = v1alpha1.Unguarded, reason
	judgment.Event.Message = "The guard was not asked; found in the API server's audit log, last as event " + e.ID + "."
	return judgment
}

// unasked judges a write whose event does not mention the guard.
func (e *Event) unasked(set *reserved.Set) []Judgment {
	if e.Subresource != "" && e.Subresource != "scale" || !e.mayConcern(set) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(e.Objects), func(id reserved.Identity) bool { return id.Name == "" })
	switch {
	case e.Code >= http.StatusInternalServerError: // the API server may have stored it
		if len(named) > 0 && set.FindGuarded(e.operation(), e.GVR, named...) == nil {
			return nil
		}
		return []Judgment{e.judgment(Unclear, e.object())}
	case !e.succeeded():
		return nil // another check refused it
	case e.Verb == "deletecollection":
		return e.collection(set, named)
	case len(named) == 0:
		return []Judgment{e.judgment(Unclear, e.object())} // the level Metadata does not contain a generated name
	}
	switch resource := set.FindGuarded(e.operation(), e.GVR, named...); {
	case resource == nil:
		return nil
	case resource.IsTokenSecret() && e.isByAPIServer():
		return []Judgment{e.judgment(Passed, e.reference(named[0]))}
	}
	return []Judgment{e.unguarded(NotAsked, e.reference(named[0]))}
}

// collection judges the deletion of a collection. The response lists the deleted objects, if the log contains it.
func (e *Event) collection(set *reserved.Set, deleted []reserved.Identity) []Judgment {
	if len(deleted) == 0 && e.Level != "RequestResponse" {
		return []Judgment{e.judgment(Unclear, e.object())}
	}
	var judgments []Judgment
	for _, id := range deleted {
		if set.Find(e.GVR, id) != nil {
			judgments = append(judgments, e.unguarded(NotAsked, e.reference(id)))
		}
	}
	return judgments
}

// mayConcern reports whether a reserved resource has the request's type and namespace. If a deletecollection selects one name, it
// reports whether that name is reserved.
func (e *Event) mayConcern(set *reserved.Set) bool {
	own := e.Objects[0]
	if name := e.selectedName(); own.Name == "" && name != "" {
		return set.Find(e.GVR, reserved.Identity{Namespace: own.Namespace, Name: name}) != nil
	}
	return slices.ContainsFunc(set.Resources(), func(r *reserved.Resource) bool {
		return r.GVR.GroupResource() == e.GVR.GroupResource() && r.Namespace == own.Namespace &&
			// A generated name ends in random characters, so it cannot equal an exact name.
			(e.Verb != "create" || own.Name != "" || r.NamePrefix != "" || r.Account != "")
	})
}

// selectedName returns the name that the field selector of a deletecollection requires; "" if there is none.
func (e *Event) selectedName() string {
	selector, err := fields.ParseSelector(e.query().Get("fieldSelector"))
	if err != nil {
		return ""
	}
	name, _ := selector.RequiresExactMatch("metadata.name")
	return name
}

// isByAPIServer reports whether the API server sent the request to itself. It labels a token Secret when the token is used, and a
// match condition keeps this write from the guard. The log, unlike a review, shows whether a client impersonated the API server.
func (e *Event) isByAPIServer() bool {
	return e.Verb == "patch" && !e.Impersonated && e.User.Name == "system:apiserver" && slices.Contains(e.User.Groups, "system:masters")
}

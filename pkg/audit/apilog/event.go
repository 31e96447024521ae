// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	apiVersion = "audit.k8s.io/v1"
	kind       = "Event"
	// failedOpen starts the keys of the annotations by which the API server names, as their value, webhooks that it could not
	// call and did without (k8s.io/apiserver/pkg/admission/plugin/webhook/validating).
	failedOpen = "failed-open.validating.webhook.admission.k8s.io/"
)

// Event is what a judgment looks at of one event. Its texts are foreign: as they stand in the log, unbounded, not fit to
// print. It holds no value of an object.
type Event struct {
	// ID is the same for all stages of a request. Whoever asks may choose it, and give it to many requests.
	ID string
	// Level is Metadata, Request or RequestResponse.
	Level string
	// Stage is RequestReceived, ResponseStarted, ResponseComplete or Panic.
	Stage string
	// Verb is "create", "update", "patch", "delete", "deletecollection", or one that writes nothing.
	Verb string
	// URI is the path and query of the request. DryRun says that the query or the body asks for a dry run.
	URI    string
	DryRun bool
	// Received is when the request came in, and Time when it reached the Stage; by the clock of the API server that wrote the log.
	Received, Time time.Time
	// User is whom the request counts for: the impersonated user, where there is one.
	User         v1alpha1.User
	Impersonated bool
	// GVR and Subresource say what the request was made to.
	GVR         schema.GroupVersionResource
	Subresource string
	// Objects are what the written objects are known by: the request's own namespace and name first, whose name is empty for a
	// collection; then what the bodies of a write say, which only the levels Request and RequestResponse have.
	Objects []reserved.Identity
	// Code is the HTTP status; 0 where there was none.
	Code int
	// Decisions are what the guard said, by the names of its entries.
	Decisions []Decision
	// FailedOpen and Failed are entries of the guard that the API server could not call: it did without, or refused the write.
	FailedOpen []string
	Failed     string
	// Denier is the entry of the guard by which the API server's message says that it was denied, and Sentence the first line
	// of what the guard told the person.
	Denier, Sentence string
}

// Decision is what one entry of the guard's registration noted in the audit event.
type Decision struct {
	// Entry is the name of the registration's entry.
	Entry string
	// Verdict is "allow" or "deny".
	Verdict string
	// Reason is a policy.Reason.
	Reason string
	// Operation is what the guard was asked about. A patch, and a PUT, may create an absent object.
	Operation admissionv1.Operation
	// Outcome is empty for a decision that needs no record.
	Outcome v1alpha1.Outcome
	// Object is zero where the guard could not make it out.
	Object v1alpha1.ObjectReference
	// Record is the name of the audit record; empty where the guard made none.
	Record string
}

// decode reads a document that is an event by its kind.
func decode(document rawjson.Value) (*Event, error) {
	if !document.Get("kind").TextIs(kind) || !document.Get("apiVersion").TextIs(apiVersion) {
		return nil, ErrNotEvent
	}
	return decodeItem(document)
}

// decodeItem reads what is known to be an event. Of the bodies it keeps who the objects are.
func decodeItem(document rawjson.Value) (*Event, error) {
	event := &Event{}
	var user, impersonated, request, response rawjson.Value
	var received, stage string
	for key, value := range document.Members() {
		switch string(key) {
		case "auditID":
			event.ID = value.Text()
		case "level":
			event.Level = value.Text()
		case "stage":
			event.Stage = value.Text()
		case "verb":
			event.Verb = value.Text()
		case "requestURI":
			event.URI = value.Text()
		case "user":
			user = value
		case "impersonatedUser":
			impersonated = value
		case "objectRef":
			event.readObject(value)
		case "responseStatus":
			event.readStatus(value)
		case "annotations":
			event.readAnnotations(value)
		case "requestObject":
			request = value
		case "responseObject":
			response = value
		case "requestReceivedTimestamp":
			received = value.Text()
		case "stageTimestamp":
			stage = value.Text()
		}
	}
	event.readUser(user, impersonated)
	event.readBodies(request, response)
	return event, event.readTimes(received, stage)
}

func (e *Event) readTimes(received, stage string) error {
	at, err := time.Parse(time.RFC3339Nano, stage)
	if err != nil || e.ID == "" || e.Stage == "" {
		return fmt.Errorf("an event without auditID, stage or stageTimestamp: %w", ErrNotEvent)
	}
	e.Time = at
	e.Received, err = time.Parse(time.RFC3339Nano, received)
	if err != nil {
		e.Received = at
	}
	return nil
}

// readUser takes the impersonated user, as the guard does: it is whom the API server asks about.
func (e *Event) readUser(user, impersonated rawjson.Value) {
	if e.Impersonated = !impersonated.IsEmpty(); e.Impersonated {
		user = impersonated
	}
	e.User = v1alpha1.User{Name: user.Get("username").Text(), UID: user.Get("uid").Text()}
	for group := range user.Get("groups").Elements() {
		e.User.Groups = append(e.User.Groups, group.Text())
	}
}

func (e *Event) readObject(ref rawjson.Value) {
	id := reserved.Identity{}
	for key, value := range ref.Members() {
		switch string(key) {
		case "apiGroup":
			e.GVR.Group = value.Text()
		case "apiVersion":
			e.GVR.Version = value.Text()
		case "resource":
			e.GVR.Resource = value.Text()
		case "subresource":
			e.Subresource = value.Text()
		case "namespace":
			id.Namespace = value.Text()
		case "name":
			id.Name = value.Text()
		}
	}
	e.Objects = []reserved.Identity{id}
}

// The API server's words about webhooks (k8s.io/apiserver/pkg/util/webhook and .../admission/plugin/webhook/errors). Only
// the start of the message counts: further on, anybody's words may stand.
const (
	callFailed = `Internal error occurred: failed calling webhook "`
	denied     = `admission webhook "`
	deniedSays = `" denied the request: `
)

// readStatus keeps of the message what the guard itself has said. The rest may hold values: validation repeats what it
// does not like.
func (e *Event) readStatus(status rawjson.Value) {
	e.Code, _ = strconv.Atoi(string(status.Get("code"))) // an absent code is 0
	message := status.Get("message").Text()
	if rest, found := strings.CutPrefix(message, callFailed); found {
		if entry, _, _ := strings.Cut(rest, `"`); strings.HasSuffix(entry, "."+guardian.WebhookDomain) {
			e.Failed = entry
		}
		return
	}
	if rest, found := strings.CutPrefix(message, denied); found {
		if entry, words, _ := strings.Cut(rest, deniedSays); strings.HasSuffix(entry, "."+guardian.WebhookDomain) {
			e.Denier = entry
			e.Sentence, _, _ = strings.Cut(words, "\n")
		}
	}
}

// readAnnotations gathers the guard's by entry, in order of the entries' names.
func (e *Event) readAnnotations(annotations rawjson.Value) {
	byEntry := map[string]*Decision{}
	for key, value := range annotations.Members() {
		if strings.HasPrefix(string(key), failedOpen) && strings.HasSuffix(value.Text(), "."+guardian.WebhookDomain) {
			e.FailedOpen = append(e.FailedOpen, value.Text())
			continue
		}
		entry, word, _ := strings.Cut(string(key), "/")
		if !strings.HasSuffix(entry, "."+guardian.WebhookDomain) {
			continue
		}
		if byEntry[entry] == nil {
			byEntry[entry] = &Decision{Entry: entry}
		}
		byEntry[entry].note(word, value.Text())
	}
	for _, decision := range byEntry {
		if decision.Verdict != "" {
			e.Decisions = append(e.Decisions, *decision)
		}
	}
	slices.SortFunc(e.Decisions, func(a, b Decision) int { return strings.Compare(a.Entry, b.Entry) })
	slices.Sort(e.FailedOpen)
}

func (d *Decision) note(word, text string) {
	switch word {
	case "decision":
		d.Verdict = text
	case "reason":
		d.Reason = text
	case "operation":
		d.Operation = admissionv1.Operation(text)
	case "outcome":
		d.Outcome = v1alpha1.Outcome(text)
	case "resource":
		d.Object = v1alpha1.ParseObjectReference(text)
	case "record":
		d.Record = text
	}
}

// readBodies adds what the bodies say about who the objects are. A deletion's body holds its options, where a client may ask
// for a dry run; all other writes ask for it in their query.
func (e *Event) readBodies(request, response rawjson.Value) {
	if len(e.Objects) == 0 {
		e.Objects = []reserved.Identity{{}}
	}
	if !isWrite(e.Verb) {
		return // the answer to a list has no end
	}
	e.DryRun = asksDryRun(e.URI) || request.Get("kind").TextIs("DeleteOptions") && !request.Get("dryRun").IsEmpty()
	for _, body := range []rawjson.Value{request, response} {
		e.addObject(body)
		for item := range body.Get("items").Elements() {
			e.addObject(item)
		}
	}
}

// addObject completes what a body leaves out, as a patch does, from the request itself. A Status has no name.
func (e *Event) addObject(body rawjson.Value) {
	id, own := reserved.IdentityOf(body), e.Objects[0]
	if id.Name == "" && id.Account == "" {
		return
	}
	if id.Name == "" {
		id.Name = own.Name
	}
	if id.Namespace == "" {
		id.Namespace = own.Namespace
	}
	e.Objects = append(e.Objects, id)
}

func asksDryRun(uri string) bool {
	_, query, _ := strings.Cut(uri, "?")
	values, _ := url.ParseQuery(query) // what cannot be read, the API server does not read either
	return slices.Contains(values["dryRun"], metav1.DryRunAll)
}

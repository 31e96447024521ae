// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"fmt"
	"net/http"
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
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	apiVersion = "audit.k8s.io/v1"
	kind       = "Event"
	// failedOpen is the prefix of the annotations whose values are the webhooks that the API server could not call and ignored
	// (k8s.io/apiserver/pkg/admission/plugin/webhook/validating).
	failedOpen = "failed-open.validating.webhook.admission.k8s.io/"
)

// Event has the fields of an audit event that Judge reads. Its texts come from the log unchanged: they are unbounded and not safe
// to print. It contains no value of an object.
type Event struct {
	// ID is the same for all stages of a request. The client may choose it, and use it for many requests.
	ID string
	// Level is Metadata, Request or RequestResponse.
	Level string
	// Stage is RequestReceived, ResponseStarted, ResponseComplete or Panic.
	Stage string
	// Verb is "create", "update", "patch", "delete", "deletecollection", or a verb that writes nothing.
	Verb string
	// URI is the path and query of the request. DryRun says that the query or the body requests a dry run.
	URI    string
	DryRun bool
	// Received is the time of the request, and Time is when it reached the Stage, by the clock of the API server.
	Received, Time time.Time
	// User is the impersonated user, or else the user of the request.
	User         v1alpha1.User
	Impersonated bool
	// GVR and Subresource are the resource that the request addressed.
	GVR         schema.GroupVersionResource
	Subresource string
	// Objects identify the written objects. The first is the request's own namespace and name; its name is empty for a collection.
	// The others come from the bodies of a write, which only the levels Request and RequestResponse have.
	Objects []reserved.Identity
	// Code is the HTTP status; 0 if there was none.
	Code int
	// Decisions are the decisions of the guard, sorted by webhook.
	Decisions []Decision
	// FailedOpen and Failed are webhooks of the guard that the API server could not call. It ignored those in FailedOpen, and
	// refused the write because of Failed.
	FailedOpen []string
	Failed     string
	// Denier is the webhook of the guard that the API server's message names as the one that denied the write. Sentence is the
	// sentence of the guard's message.
	Denier, Sentence string
	// Policy is the ValidatingAdmissionPolicy of the chart that denied the write, and Sentence then its message.
	Policy string
}

// Decision is the decision of one webhook or policy of the guard, from its annotations of the audit event.
type Decision struct {
	// Webhook is the name of the webhook or policy.
	Webhook string
	// Decision is "allow" or "deny".
	Decision string
	// Reason is a policy.Reason.
	Reason string
	// Operation is the operation of the review. A PATCH or a PUT may create an absent object.
	Operation admissionv1.Operation
	// Outcome is empty for a decision that needs no record.
	Outcome v1alpha1.Outcome
	// Object is zero if the guard could not read it.
	Object v1alpha1.ObjectReference
	// Record is the name of the audit record; empty if the guard made none. A policy makes none.
	Record string
	// DryRun and Message are of a policy: the write was a dry run, and the sentence of its denial.
	DryRun  bool
	Message string
}

// isPolicy reports whether a ValidatingAdmissionPolicy decided.
func (d Decision) isPolicy() bool { return isPolicy(d.Webhook) }

// decode reads an event. Of the bodies it keeps the identities of the objects.
func decode(document rawjson.Value) (*Event, error) {
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
		return fmt.Errorf("no auditID, stage or stageTimestamp: %w", ErrNotEvent)
	}
	e.Time = at
	e.Received, err = time.Parse(time.RFC3339Nano, received)
	if err != nil {
		e.Received = at
	}
	return nil
}

// readUser reads the impersonated user, if there is one: reviews name that user too.
func (e *Event) readUser(user, impersonated rawjson.Value) {
	if e.Impersonated = !impersonated.IsEmpty(); e.Impersonated {
		user = impersonated
	}
	e.User = v1alpha1.User{Name: user.Get("username").Text(), UID: user.Get("uid").Text()}
	for group := range user.Get("groups").Elements() {
		e.User.Groups = append(e.User.Groups, group.Text())
	}
	extra := audit.Extra{}
	for key, values := range user.Get("extra").Members() {
		for value := range values.Elements() {
			extra[string(key)] = append(extra[string(key)], value.Text())
		}
	}
	e.User.Extra = audit.KeptExtra(extra, []string{audit.AllExtra})
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

// Messages of the API server about webhooks (k8s.io/apiserver/pkg/util/webhook and .../admission/plugin/webhook/errors). Only the
// start of a message is trustworthy: the rest may contain text of a client.
const (
	callFailed = `Internal error occurred: failed calling webhook "`
	denied     = `admission webhook "`
	deniedSays = `" denied the request: `
	// forbidden follows the type and the name of the object (k8s.io/apiserver/pkg/admission/plugin/policy/validating). A rejected field
	// may hold any text, but its code is 422.
	forbidden  = ` is forbidden: ValidatingAdmissionPolicy '`
	policySays = ` denied request: `
)

// readStatus keeps only the guard's own text of the message. Other texts may contain values of the object: validation errors
// repeat them.
func (e *Event) readStatus(status rawjson.Value) {
	e.Code, _ = strconv.Atoi(string(status.Get("code"))) // an absent code is 0
	message := status.Get("message").Text()
	if rest, found := strings.CutPrefix(message, callFailed); found {
		if webhook, _, _ := strings.Cut(rest, `"`); isOfGuard(webhook) {
			e.Failed = webhook
		}
		return
	}
	if rest, found := strings.CutPrefix(message, denied); found {
		if webhook, message, _ := strings.Cut(rest, deniedSays); isOfGuard(webhook) {
			e.Denier = webhook
			line, _, _ := strings.Cut(message, "\n")
			e.Sentence = policy.SentenceOf(line)
		}
		return
	}
	if _, rest, found := strings.Cut(message, forbidden); found && e.Code == http.StatusForbidden {
		name, rest, _ := strings.Cut(rest, "'")
		if slices.Contains([]string{guardian.RegistrationPolicy, guardian.RecordsPolicy, guardian.InstallationPolicy}, name) {
			e.Policy = name
			_, e.Sentence, _ = strings.Cut(rest, policySays)
		}
	}
}

// isPolicy reports whether the name is that of a policy of the guard, as pkg/policies makes it.
func isPolicy(name string) bool { return strings.HasPrefix(name, guardian.Name+"-") }

// isOfGuard reports whether a webhook of this name belongs to the guard.
func isOfGuard(webhook string) bool { return strings.HasSuffix(webhook, "."+guardian.WebhookDomain) }

// readAnnotations collects the annotations of the guard, and sorts the decisions by webhook.
func (e *Event) readAnnotations(annotations rawjson.Value) {
	byWebhook := map[string]*Decision{}
	for key, value := range annotations.Members() {
		if strings.HasPrefix(string(key), failedOpen) && isOfGuard(value.Text()) {
			e.FailedOpen = append(e.FailedOpen, value.Text())
			continue
		}
		webhook, name, _ := strings.Cut(string(key), "/")
		if !isOfGuard(webhook) && !isPolicy(webhook) {
			continue
		}
		if byWebhook[webhook] == nil {
			byWebhook[webhook] = &Decision{Webhook: webhook}
		}
		byWebhook[webhook].set(name, value.Text())
	}
	for _, decision := range byWebhook {
		if decision.Decision != "" {
			e.Decisions = append(e.Decisions, *decision)
		}
	}
	slices.SortFunc(e.Decisions, func(a, b Decision) int { return strings.Compare(a.Webhook, b.Webhook) })
	slices.Sort(e.FailedOpen)
}

func (d *Decision) set(name, text string) {
	switch name {
	case "decision":
		d.Decision = text
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
	case "dryRun":
		d.DryRun = d.isPolicy()
	case "message":
		d.Message = text
	}
}

// readBodies adds the identities of the objects in the bodies. A deletion may request a dry run in its body, which has its
// options; all other writes request it in their query.
func (e *Event) readBodies(request, response rawjson.Value) {
	if len(e.Objects) == 0 {
		e.Objects = []reserved.Identity{{}}
	}
	if !isWrite(e.Verb) {
		return // the response to a list may have any number of objects
	}
	inBody := request.Get("kind").TextIs("DeleteOptions") && !request.Get("dryRun").IsEmpty()
	e.DryRun = inBody || slices.Contains(e.query()["dryRun"], metav1.DryRunAll)
	for _, body := range []rawjson.Value{request, response} {
		e.addObject(body)
		for item := range body.Get("items").Elements() {
			e.addObject(item)
		}
	}
}

// addObject adds the identity of an object, and takes an absent name or namespace from the request: a patch may lack both.
func (e *Event) addObject(body rawjson.Value) {
	id, own := reserved.IdentityOf(body), e.Objects[0]
	if id.Name == "" && id.Account == "" {
		return // such as a Status
	}
	if id.Name == "" {
		id.Name = own.Name
	}
	if id.Namespace == "" {
		id.Namespace = own.Namespace
	}
	e.Objects = append(e.Objects, id)
}

// query returns the parameters of the request. The API server ignores a malformed part too.
func (e *Event) query() url.Values {
	_, query, _ := strings.Cut(e.URI, "?")
	values, _ := url.ParseQuery(query)
	return values
}

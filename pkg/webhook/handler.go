// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook answers admission reviews in six steps: serve, decode, decide, record, respond, observe.
package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// Path is the URL path of the webhook.
const Path = "/validate"

// LookupTimeout bounds the lookups of a decision together. Within the registration's 5 s, it leaves time for an answer.
const LookupTimeout = 2 * time.Second

// Lookup answers a lookup of a decision from the live cluster. After an error the write is denied, and the controller retries.
type Lookup interface {
	Holds(ctx context.Context, lookup policy.Lookup) (bool, error)
}

// Unlocks has the facts of a decision besides the request.
type Unlocks interface {
	// Facts returns Facts without Holds. seen is false if the replica has not read the unlocks lately: then it honours none.
	Facts() (facts policy.Facts, seen bool)
	// Used notes that an Unlock allowed a write.
	Used(unlock string)
}

// Recorder stores audit events. Record returns the name of the record, even if it gives up storing it: a denial needs no record.
type Recorder interface {
	Record(ctx context.Context, event audit.Event) string
}

// Handler answers reviews. Policy, Lookup, Log and Metrics are required. It is safe for concurrent use.
type Handler struct {
	Policy *policy.Policy
	Lookup Lookup
	// AsksCallers says that the listener asks for a client certificate: a caller without one is not verified.
	AsksCallers bool
	// Unlocks is nil for a handler that honours no unlock.
	Unlocks Unlocks
	// ExtraKeys are the keys of userInfo.extra that records and logs have, as of audit.KeptExtra; none keeps nothing.
	ExtraKeys []string
	// Recorder stores audit records. Without it, the log is the only trace of a decision.
	Recorder Recorder
	// Replica signs denials of probes. Without it, probes get no signature.
	Replica *probe.Replica
	// Log takes one line for each review. Allowed writes that need no record have level debug.
	Log     *slog.Logger
	Metrics *Metrics
	// Hint is the second line of a denial; empty for none. See policy.Decision.Hint.
	Hint string
}

// ServeHTTP answers one review. A request that is no review gets an HTTP status only. A body that is a Received is not copied.
//
// Every review with a readable uid gets HTTP 200 and a decision: the API server hides the text of an HTTP error from the user.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if status := refuse(r); status != http.StatusOK {
		http.Error(w, http.StatusText(status)+": an AdmissionReview is posted here, as application/json", status)
		return
	}
	request, err := Read(r.Body)
	if err == nil && isReachProbe(request) {
		h.respond(w, request, "", denial("the API server reaches the guard"))
		return
	}
	decision, err := h.evaluate(r.Context(), request, err)
	h.logLine(r.Context(), request, decision, err)
	record := h.record(r, request, decision)
	h.respond(w, request, decision.Reason, h.response(request, decision, record))
	h.Metrics.observe(decision, time.Since(start))
}

// isReachProbe reports whether the review only finds out whether API servers reach the guard. It is denied and leaves no trace.
func isReachProbe(r *policy.Request) bool {
	return r.DryRun && r.GVR == corev1.SchemeGroupVersion.WithResource("configmaps") && r.Name == guardian.Replicas &&
		probe.IsNonce(r.Object.Get("metadata", "annotations", guardian.ProbeAnnotation).Text())
}

// refuse returns the HTTP status for a request that cannot be a review, and 200 for one that can.
func refuse(r *http.Request) int {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || r.Header.Get("Content-Encoding") != "" {
		return http.StatusUnsupportedMediaType
	}
	return http.StatusOK
}

// evaluate decides. Its error is for the log: it says why the review was denied unread, or which lookup failed.
func (h *Handler) evaluate(ctx context.Context, request *policy.Request, readErr error) (policy.Decision, error) {
	switch {
	case errors.Is(readErr, ErrTooLarge):
		return policy.Deny(policy.TooLarge), readErr
	case errors.Is(readErr, ErrOverloaded):
		return policy.Deny(policy.Overloaded), readErr
	case readErr != nil:
		return policy.Deny(policy.Unreadable), readErr
	}
	reviewed := h.Policy.Review(request)
	holds, err := h.holds(ctx, reviewed.Lookups())
	facts, _ := h.facts()
	facts.Holds = holds
	decision := reviewed.Decide(facts)
	if decision.Unlock != "" && !request.DryRun {
		h.Unlocks.Used(decision.Unlock)
	}
	return decision, err
}

func (h *Handler) facts() (facts policy.Facts, seen bool) {
	if h.Unlocks == nil {
		return policy.Facts{Now: metav1.Now()}, true
	}
	return h.Unlocks.Facts()
}

// holds answers each lookup.
func (h *Handler) holds(ctx context.Context, lookups []policy.Lookup) ([]bool, error) {
	if len(lookups) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, LookupTimeout)
	defer cancel()
	answers := make([]bool, 0, len(lookups))
	var failed error
	for _, lookup := range lookups {
		holds, err := h.Lookup.Holds(ctx, lookup)
		failed = cmp.Or(failed, err)
		answers = append(answers, err == nil && holds || err != nil && lookup.OnError)
	}
	return answers, failed
}

// respond writes the answer. Without a uid the API server ignores it, so the HTTP status says that the review failed.
func (h *Handler) respond(w http.ResponseWriter, request *policy.Request, reason policy.Reason, response *admissionv1.AdmissionResponse) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case request.UID != "":
	case reason == policy.Overloaded:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
	_, _ = w.Write(Encode(request.UID, response)) // an error means that the API server closed the connection
}

func (h *Handler) response(request *policy.Request, decision policy.Decision, record string) *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{Allowed: true}
	switch {
	case !decision.Allowed:
		r = denial(decision.Message(h.hint(request, decision), record) + h.prove(request, decision))
	case decision.Outcome == v1alpha1.WouldDeny:
		r.Warnings = []string{"apigw-guardian would deny this: " + decision.Message("", record)}
	}
	r.AuditAnnotations = annotations(request, decision, record)
	return r
}

// denial returns the response that denies a request, with code 403 and reason Forbidden.
func denial(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Message: message, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden,
	}}
}

// blindHint is the second line of a denial by a replica that has not read the unlocks lately.
const blindHint = "Unlocks are not honoured now: the guard has not been able to read them from the API server for more than 10 seconds."

func (h *Handler) hint(request *policy.Request, decision policy.Decision) string {
	if _, seen := h.facts(); !seen && h.Hint != "" {
		return blindHint
	}
	return decision.Hint(h.Hint, request)
}

// annotations returns the keys of the API server's audit event, for each decision about a reserved resource. An empty value
// has no key: outcome and record of a decision without a record, operation and resource of an unreadable request.
func annotations(request *policy.Request, decision policy.Decision, record string) map[string]string {
	if decision.Reason == policy.NotReserved {
		return nil
	}
	a := map[string]string{
		"decision": verdict(decision), "reason": string(decision.Reason), "operation": printable(string(request.Operation)),
		"outcome": string(decision.Outcome), "resource": decision.Object.String(), "record": record,
		"unlock": decision.Unlock,
	}
	maps.DeleteFunc(a, func(_, value string) bool { return value == "" })
	return a
}

func verdict(decision policy.Decision) string {
	if decision.Allowed {
		return "allow"
	}
	return "deny"
}

// prove returns the last line of a denied probe's message: the proof that this replica denied it; "" for every other request.
func (h *Handler) prove(request *policy.Request, decision policy.Decision) string {
	if h.Replica == nil || decision.Allowed || decision.Resource == nil || decision.Via != "" || !request.DryRun {
		return ""
	}
	nonce := request.Object.Get("metadata", "annotations", guardian.ProbeAnnotation).Text()
	if !probe.IsNonce(nonce) {
		return ""
	}
	h.Metrics.probes.Inc()
	return "\n" + h.Replica.Sign(probe.Subject{
		Nonce: nonce, Operation: request.Operation, Resource: request.GVR.GroupResource().String(), Namespace: decision.Object.Namespace,
	})
}

// Encode writes the AdmissionReview that answers the request with this uid. The API server ignores an answer with another one.
func Encode(uid string, response *admissionv1.AdmissionResponse) []byte {
	response.UID = types.UID(uid)
	data, _ := json.Marshal(admissionv1.AdmissionReview{ // texts only, which JSON can hold
		TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		Response: response,
	})
	return data
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// record stores the event of a decision and returns the name of its record; "" for a decision without an outcome, a dry-run or a review
// without a uid.
func (h *Handler) record(r *http.Request, request *policy.Request, decision policy.Decision) string {
	if h.Recorder == nil || decision.Outcome == "" || request.DryRun || request.UID == "" {
		return ""
	}
	return h.Recorder.Record(r.Context(), audit.Event{
		Time:       time.Now(),
		RequestUID: request.UID,
		Outcome:    decision.Outcome,
		Operation:  request.Operation,
		Object:     objectOf(request, decision),
		ObjectUID:  request.OldObject.Get("metadata", "uid").Text(),
		Reason:     string(decision.Reason),
		Message:    decision.Sentence(),
		Changed:    decision.Changed,
		Unlock:     decision.Unlock,

		Justification: decision.Justification,

		User:   h.userOf(request),
		Caller: h.callerOf(r),
		Source: v1alpha1.SourceGuard,
		Peer:   r.RemoteAddr,
	})
}

// userOf returns the user with the Extra that a record may hold.
func (h *Handler) userOf(request *policy.Request) v1alpha1.User {
	user := request.User
	user.Extra = audit.KeptExtra(user.Extra, h.ExtraKeys)
	return user
}

// objectOf returns the written object. Without a decision about an object, it is the one that the review's head names.
func objectOf(request *policy.Request, decision policy.Decision) v1alpha1.ObjectReference {
	if decision.Object != (v1alpha1.ObjectReference{}) {
		return decision.Object
	}
	return v1alpha1.ObjectReference{
		Group: request.GVR.Group, Resource: request.GVR.Resource, Namespace: request.Namespace, Name: request.Name,
	}
}

func (h *Handler) callerOf(r *http.Request) v1alpha1.Caller {
	if caller := CallerOf(r); caller != "" || !h.AsksCallers {
		return caller
	}
	return v1alpha1.CallerUnverified
}

// logLine writes one line for each review. It names fields, and never a value of an object.
func (h *Handler) logLine(ctx context.Context, request *policy.Request, decision policy.Decision, err error) {
	level, message := slog.LevelDebug, "write allowed"
	switch {
	case !decision.Allowed:
		level, message = slog.LevelWarn, "write denied"
	case decision.Outcome != "":
		level, message = slog.LevelInfo, "write to a reserved resource allowed"
	}
	if !h.Log.Enabled(ctx, level) {
		return
	}
	h.Log.LogAttrs(ctx, level, message, h.attributes(request, decision, err)...) //nolint:sloglint // one of the three above
}

// attributes returns the fields of a log line. Queries of administrators depend on their keys.
func (h *Handler) attributes(request *policy.Request, decision policy.Decision, err error) []slog.Attr {
	object := objectOf(request, decision)
	attributes := []slog.Attr{
		slog.String("requestUID", printable(request.UID)),
		slog.String("user", printable(request.User.Name)),
		slog.String("operation", printable(string(request.Operation))),
		slog.String("group", printable(object.Group)),
		slog.String("resource", printable(object.Resource)),
		slog.String("namespace", printable(object.Namespace)),
		slog.String("name", printable(object.Name)),
		slog.String("subresource", printable(request.Subresource)),
		slog.Bool("dryRun", request.DryRun),
		slog.String("decision", verdict(decision)),
		slog.String("reason", string(decision.Reason)),
	}
	if len(decision.Changed) > 0 {
		attributes = append(attributes, slog.Any("changed", decision.Changed[:min(len(decision.Changed), maxChanged)]))
	}
	if user := h.userOf(request); len(user.Extra) > 0 {
		attributes = append(attributes, slog.String("userExtra", text.Printable(strings.Join(audit.ExtraLines(&user), " "), maxLogged)))
	}
	if err != nil {
		attributes = append(attributes, slog.String("err", err.Error()))
	}
	return attributes
}

// maxLogged and maxChanged limit what untrusted text adds to a log line.
const (
	maxLogged  = 256
	maxChanged = 32
)

func printable(untrusted string) string { return text.Printable(untrusted, maxLogged) }

// CallerOf says whether a client certificate proves that the caller is an API server. It returns "" for a request without a certificate:
// the listener asks for none, or accepts callers without one.
func CallerOf(r *http.Request) v1alpha1.Caller {
	switch {
	case r.TLS == nil || len(r.TLS.PeerCertificates) == 0:
		return ""
	case len(r.TLS.VerifiedChains) == 0:
		return v1alpha1.CallerUnverified
	}
	return v1alpha1.CallerVerified
}

// Metrics counts decisions. All labels are bounded by the code and the reserved set; nothing of a request becomes one.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	probes   prometheus.Counter
}

// NewMetrics registers the metrics. It panics if the registry has them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	register := promauto.With(registry)
	m := &Metrics{
		requests: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_requests_total",
			Help: "Admission reviews by decision (allow, deny), reason, and the reserved kind of resource (\"\" where none is concerned).",
		}, []string{"decision", "reason", "resource"}),
		duration: register.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apigw_guardian_request_duration_seconds",
			Help:    "Time from the head of a review to its answer, by decision.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"decision"}),
		probes: register.NewCounter(prometheus.CounterOpts{
			Name: "apigw_guardian_probes_total",
			Help: "Denied dry-runs of status, verify and authorize to which this replica added its proof.",
		}),
	}
	for _, decision := range []policy.Decision{{}, {Allowed: true}} {
		m.duration.WithLabelValues(verdict(decision)) // from zero on, so that the first denial is an increase
	}
	return m
}

func (m *Metrics) observe(decision policy.Decision, took time.Duration) {
	resource := ""
	if decision.Resource != nil {
		resource = decision.Resource.GVR.Resource
	}
	m.requests.WithLabelValues(verdict(decision), string(decision.Reason), resource).Inc()
	m.duration.WithLabelValues(verdict(decision)).Observe(took.Seconds())
}

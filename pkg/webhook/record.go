// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// The keys of log lines. Queries of administrators depend on them.
const (
	keyRequestUID  = "requestUID"
	keyUser        = "user"
	keyOperation   = "operation"
	keyGroup       = "group"
	keyResource    = "resource"
	keyNamespace   = "namespace"
	keyName        = "name"
	keySubresource = "subresource"
	keyDryRun      = "dryRun"
	keyDecision    = "decision"
	keyReason      = "reason"
	keyChanged     = "changed"
	keyError       = "err"
)

// record stores the event of a decision that has an outcome, and returns the name of its record. A dry-run leaves no record, and
// neither does a review without a uid, which no API server sends.
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
		Reason:     string(decision.Reason),
		Message:    decision.Sentence(),
		Changed:    decision.Changed,
		Unlock:     decision.Unlock,

		Justification: decision.Justification,

		User:   request.User,
		Caller: h.callerOf(r),
		Source: v1alpha1.SourceGuard,
		Peer:   r.RemoteAddr,
	})
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
	h.Log.LogAttrs(ctx, level, message, attributes(request, decision, err)...) //nolint:sloglint // one of the three above
}

func attributes(request *policy.Request, decision policy.Decision, err error) []slog.Attr {
	object := objectOf(request, decision)
	attributes := []slog.Attr{
		slog.String(keyRequestUID, printable(request.UID)),
		slog.String(keyUser, printable(request.User.Name)),
		slog.String(keyOperation, printable(string(request.Operation))),
		slog.String(keyGroup, printable(object.Group)),
		slog.String(keyResource, printable(object.Resource)),
		slog.String(keyNamespace, printable(object.Namespace)),
		slog.String(keyName, printable(object.Name)),
		slog.String(keySubresource, printable(request.Subresource)),
		slog.Bool(keyDryRun, request.DryRun),
		slog.String(keyDecision, verdict(decision)),
		slog.String(keyReason, string(decision.Reason)),
	}
	if len(decision.Changed) > 0 {
		attributes = append(attributes, slog.Any(keyChanged, decision.Changed[:min(len(decision.Changed), maxChanged)]))
	}
	if err != nil {
		attributes = append(attributes, slog.String(keyError, err.Error()))
	}
	return attributes
}

// maxLogged and maxChanged bound what a foreign string may add to a log line.
const (
	maxLogged  = 256
	maxChanged = 32
)

func printable(foreign string) string { return text.Printable(foreign, maxLogged) }

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// What an attack wants and gets. Got can also be "failed: " with a reason.
const (
	denied  = "denied"
	allowed = "allowed"
	leftOut = "left out"
)

// The API server's messages when a webhook denies or its call fails: k8s.io/apiserver/pkg/admission/plugin/webhook/{errors,generic}.
var (
	deniedByGuard = regexp.MustCompile(`^admission webhook "[a-z0-9.-]+\.apigw-guardian\.io" denied the request`)
	// The policies of pkg/policies: k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go.
	deniedByPolicy = regexp.MustCompile(`^[a-z0-9./-]+ "[^"]*" is forbidden: ValidatingAdmissionPolicy 'apigw-guardian-[a-z0-9.-]+' with ` +
		`binding '[a-z0-9.-]+' denied request: `)
	guardFailed = regexp.MustCompile(`failed calling webhook "[a-z0-9.-]+\.apigw-guardian\.io"`)
)

// The API server's message when RBAC refuses, which it does before it calls a webhook: k8s.io/apiserver,
// pkg/endpoints/handlers/responsewriters, and the escalation check of k8s.io/kubernetes, pkg/registry/rbac/validation.
var rbacRefused = regexp.MustCompile(
	`^[a-z0-9./-]+( "[^"]*")? is forbidden: (User ".*" cannot |user ".*" \(groups=.*\) is attempting to grant RBAC permissions)`)

// isRefusedByRBAC reports whether the caller may not make the write, with or without the guard.
func isRefusedByRBAC(err error) bool {
	status, isAnswer := errors.AsType[*apierrors.StatusError](err)
	return isAnswer && status.ErrStatus.Code == http.StatusForbidden && rbacRefused.MatchString(status.ErrStatus.Message)
}

// messageOf returns the message of the API server; "" for an error that is not its answer.
func messageOf(err error) string {
	status, isAnswer := errors.AsType[*apierrors.StatusError](err)
	if !isAnswer {
		return ""
	}
	return status.ErrStatus.Message
}

// resultOf returns what happened to a write. Only the guard's webhook or policy makes it "denied": a refusal by RBAC or a failed call
// does not.
func resultOf(err error) string {
	if err == nil {
		return allowed
	}
	status, isAnswer := errors.AsType[*apierrors.StatusError](err)
	if !isAnswer {
		return "failed: " + err.Error()
	}
	s := status.Status()
	switch {
	case s.Code == http.StatusForbidden && (deniedByGuard.MatchString(s.Message) || deniedByPolicy.MatchString(s.Message)):
		return denied
	case guardFailed.MatchString(s.Message):
		return "failed: the guard did not answer: " + s.Message
	case s.Code == http.StatusForbidden:
		return "failed: refused, but not by the guard: " + s.Message
	}
	return "failed: " + withoutValues(s)
}

// withoutValues describes an error without the values of fields, which can be a Secret's.
func withoutValues(s metav1.Status) string {
	text := fmt.Sprintf("%s (%d)", s.Reason, s.Code)
	if s.Reason != metav1.StatusReasonInvalid {
		return text + ": " + s.Message
	}
	var fields []string
	if s.Details != nil {
		for _, cause := range s.Details.Causes {
			fields = append(fields, cause.Field)
		}
	}
	return text + " in " + strings.Join(fields, ", ")
}

// try runs an attack with a nonce. If the attack's object has the mark, a denial counts only with the proof of a replica.
// PermittedWrites accepts a denial without proof if the caller may not read the keys. A policy needs none: the API server evaluates it.
func (v Verifier) try(ctx context.Context, a attack, t target) (got string, err error) {
	t.nonce = probe.NewNonce()
	err = a.run(ctx, t)
	if got = resultOf(err); got != denied || a.marked == "" {
		return got, err
	}
	message := messageOf(err)
	if deniedByPolicy.MatchString(message) {
		return got, err
	}
	// The keys are read after the denial, so that a replica that has just started is known.
	registration, readErr := v.cluster.WebhookConfiguration(ctx)
	var keys probe.Keys
	if registration != nil {
		keys = probe.KeysOf(registration.Annotations)
	}
	subject := probe.Subject{
		Nonce: t.nonce, Operation: a.marked, Resource: t.resource.GVR.GroupResource().String(), Namespace: t.resource.Namespace,
	}
	switch {
	case v.leavesOut(readErr):
		return got, err
	case readErr != nil:
		return "failed: denied, but the keys of the replicas cannot be read: " + readErr.Error(), err
	case len(keys) == 0:
		return "failed: denied, but the webhook configuration names no replica, so nothing proves the denial; check the version of " +
			"the guard", err
	case !keys.Prove(message, subject):
		return "failed: denied, but the denial has no valid proof of a replica: another process that holds the key of the CA can " +
			"answer for the guard", err
	}
	return got, err
}

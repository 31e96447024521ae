// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What an attack wants and gets. Got may also say why neither came of it: "failed: ...".
const (
	denied  = "denied"
	allowed = "allowed"
	leftOut = "left out"
)

// The API server's words when a webhook denies, and when it cannot be asked: k8s.io/apiserver,
// pkg/admission/plugin/webhook/errors and .../generic.
var (
	deniedByGuard = regexp.MustCompile(`^admission webhook "[a-z0-9.-]+\.apigw-guardian\.io" denied the request`)
	guardFailed   = regexp.MustCompile(`failed calling webhook "[a-z0-9.-]+\.apigw-guardian\.io"`)
)

// The API server's words when RBAC refuses, which it does before it asks any webhook: k8s.io/apiserver,
// pkg/endpoints/handlers/responsewriters, and the escalation check of k8s.io/kubernetes, pkg/registry/rbac/validation.
var rbacRefused = regexp.MustCompile(
	`^[a-z0-9./-]+( "[^"]*")? is forbidden: (User ".*" cannot |user ".*" \(groups=.*\) is attempting to grant RBAC permissions)`)

// refusedByRBAC says that the caller may not make the write, whether the guard stands or not.
func refusedByRBAC(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code == http.StatusForbidden && rbacRefused.MatchString(status.Status().Message)
}

// verdict tells what became of a write from its error. Only a denial in the guard's own name counts as one: a refusal by
// RBAC, or a guard that does not answer, protects nothing.
func verdict(err error) string {
	if err == nil {
		return allowed
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return "failed: " + err.Error()
	}
	s := status.Status()
	switch {
	case s.Code == http.StatusForbidden && deniedByGuard.MatchString(s.Message):
		return denied
	case guardFailed.MatchString(s.Message):
		return "failed: the guard was asked and did not answer: " + s.Message
	case s.Code == http.StatusForbidden:
		return "failed: refused, but not by the guard: " + s.Message
	}
	return "failed: " + safely(s)
}

// safely describes an error without the values of fields, which may be of a Secret.
func safely(s metav1.Status) string {
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

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Response is the answer to one review. Its zero value denies.
type Response struct {
	// UID must be the one of the request, or the API server takes the answer for none.
	UID     string
	Allowed bool
	// Message is what a denied person reads; without meaning where Allowed.
	Message string
	// Warnings are shown to the person by kubectl, one line each.
	Warnings []string
	// AuditAnnotations land in the API server's audit event; keys have at most 63 characters.
	AuditAnnotations map[string]string
}

// Encode writes the answer as an AdmissionReview. A denial has code 403 and reason Forbidden, so that clients take it for
// what it is.
func Encode(response Response) ([]byte, error) {
	answer := &admissionv1.AdmissionResponse{
		UID:              types.UID(response.UID),
		Allowed:          response.Allowed,
		Warnings:         response.Warnings,
		AuditAnnotations: response.AuditAnnotations,
	}
	if !response.Allowed {
		answer.Result = &metav1.Status{
			Status:  metav1.StatusFailure,
			Message: response.Message,
			Reason:  metav1.StatusReasonForbidden,
			Code:    http.StatusForbidden,
		}
	}
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: kind},
		Response: answer,
	})
	if err != nil {
		return nil, fmt.Errorf("write the answer to review %q: %w", response.UID, err)
	}
	return data, nil
}

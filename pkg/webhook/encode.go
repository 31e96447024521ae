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
	// UID is the uid of the request. The API server ignores an answer with another one.
	UID     string
	Allowed bool
	// Message is what the caller reads after a denial; unused if Allowed.
	Message string
	// Warnings are lines that kubectl shows to the caller.
	Warnings []string
	// AuditAnnotations are part of the API server's audit event. A key has at most 63 characters.
	AuditAnnotations map[string]string
}

// Encode writes the answer as an AdmissionReview. A denial has code 403 and reason Forbidden.
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

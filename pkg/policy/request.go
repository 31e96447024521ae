// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// Request is the part of an AdmissionRequest that a decision reads. Its strings come from the API server unchanged: they are
// unbounded and not safe to print.
type Request struct {
	// UID identifies the AdmissionRequest.
	UID  string
	GVR  schema.GroupVersionResource
	Kind string
	// Subresource is empty for the resource itself.
	Subresource string
	Operation   admissionv1.Operation
	// Namespace and Name are for logs, and for side doors. Either may be empty: any other decision reads them from the objects.
	Namespace, Name string
	User            v1alpha1.User
	DryRun          bool
	// Object and OldObject are nil if the operation has none. They share the bytes of the review.
	Object, OldObject rawjson.Value
}

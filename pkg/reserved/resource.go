// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package reserved knows which resources of a cluster are reserved, by whom, and what they must look like.
//
// A reservation is one YAML file. Everything else of the product (matching, registration, apply, drift, verify) derives
// from it, so that a further reservation needs no code.
package reserved

import (
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// Guard says what of a reserved resource is guarded. Its zero value guards the most.
type Guard int

const (
	// GuardContent guards the existence and the content against the reserved manifest.
	GuardContent Guard = iota
	// GuardTokens guards Secrets that hold a credential of a reserved ServiceAccount whose reservation has no token Secret
	// of its own. There is no manifest.
	GuardTokens
	// GuardExistence guards a Namespace that holds reserved resources against deletion only. There is no manifest.
	GuardExistence
)

// Resource is one reserved resource. It is immutable: share it, and do not write to its fields.
type Resource struct {
	// Reservation is the name of the reservation that it belongs to, and Owner whom messages name ("API Gateway").
	Reservation string
	Owner       string
	Guard       Guard

	GVR  schema.GroupVersionResource
	Kind string
	// Namespace is empty for a cluster-scoped resource.
	Namespace string
	// Name is the name that the manifest has; empty with GuardTokens.
	Name string
	// NamePrefix reserves every name that starts with it, besides Name; empty where only Name is reserved.
	NamePrefix string
	// Account is, for a Secret that holds a credential, the name of the reserved ServiceAccount in the same namespace that
	// the credential is for. Every Secret that names this account is reserved, whatever its own name is.
	Account string

	manifest []byte
}

// GVK returns the group, version and kind.
func (r *Resource) GVK() schema.GroupVersionKind { return r.GVR.GroupVersion().WithKind(r.Kind) }

// HasManifest reports whether there is a manifest to apply and to compare with.
func (r *Resource) HasManifest() bool { return r.manifest != nil }

// Manifest returns the reserved manifest as JSON; absent where HasManifest is false. It must not be changed.
func (r *Resource) Manifest() rawjson.Value { return r.manifest }

// Object returns a copy of the reserved manifest that the caller may change; nil where HasManifest is false.
func (r *Resource) Object() *unstructured.Unstructured {
	if !r.HasManifest() {
		return nil
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(r.manifest); err != nil {
		return nil // the loader has read these very bytes before
	}
	return object
}

// Guards reports whether the resource is guarded against an operation. With GuardExistence that is only Delete.
func (r *Resource) Guards(operation admissionv1.Operation) bool {
	return r.Guard != GuardExistence || operation == admissionv1.Delete
}

// IsTokenSecret reports whether the resource is a Secret that holds a credential of a ServiceAccount.
func (r *Resource) IsTokenSecret() bool { return r.Account != "" }

// Reference identifies an object of the resource's type.
func (r *Resource) Reference(namespace, name string) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{Group: r.GVR.Group, Resource: r.GVR.Resource, Namespace: namespace, Name: name}
}

// String returns the reference to the resource as text; a name prefix has a trailing "*".
func (r *Resource) String() string {
	name := r.Name
	if r.NamePrefix != "" {
		name = r.NamePrefix + "*"
	}
	if r.Guard == GuardTokens {
		name = "*"
	}
	return r.Reference(r.Namespace, name).String()
}

// Identity is what a stored object is known by. For a Secret, Account is the ServiceAccount that its annotation
// kubernetes.io/service-account.name asks a credential for; it counts as much as the name does.
type Identity struct {
	Namespace, Name, Account string
}

// IdentityOf reads the identity from the object's own metadata: an item of a DELETECOLLECTION carries no name in its
// request.
func IdentityOf(object rawjson.Value) Identity {
	var id Identity
	for key, value := range object.Get("metadata").Members() {
		switch string(key) {
		case "namespace":
			id.Namespace = value.Text()
		case "name":
			id.Name = value.Text()
		case "annotations":
			id.Account = value.Get(corev1.ServiceAccountNameKey).Text()
		}
	}
	return id
}

// Covers reports whether an object of the resource's kind with this identity is reserved by this entry.
func (r *Resource) Covers(id Identity) bool {
	if id.Namespace != r.Namespace || id.Name == "" {
		return false
	}
	if r.Account != "" && id.Account == r.Account {
		return true
	}
	if r.NamePrefix != "" && strings.HasPrefix(id.Name, r.NamePrefix) {
		return true
	}
	return r.Name != "" && id.Name == r.Name
}

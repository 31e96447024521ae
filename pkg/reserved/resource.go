// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package reserved loads the reserved resources of a cluster, with their owners and manifests.
//
// A reservation is one YAML file. All features (matching, registration, apply, drift, verify) derive from it, so another
// reservation needs no code.
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

// Guard is the scope of the protection of a reserved resource. Its zero value protects most.
type Guard int

const (
	// GuardContent protects the object and its content: both must match the reserved manifest.
	GuardContent Guard = iota
	// GuardTokens denies token Secrets of a reserved ServiceAccount whose reservation has no token Secret. There is no manifest.
	GuardTokens
	// GuardExistence denies only the deletion of a Namespace with reserved resources. There is no manifest.
	GuardExistence
)

// Resource is one reserved resource. It is immutable and safe for concurrent use: do not write to its fields.
type Resource struct {
	// Reservation is the name of its reservation. Owner is the owner that messages name, such as "API Gateway".
	Reservation string
	Owner       string
	Guard       Guard

	GVR  schema.GroupVersionResource
	Kind string
	// Namespace is empty for a cluster-scoped resource.
	Namespace string
	// Name is the name in the manifest; empty with GuardTokens.
	Name string
	// NamePrefix reserves every name that starts with it; empty if only Name is reserved.
	NamePrefix string
	// Account is the ServiceAccount of a token Secret, in the same namespace; empty for other resources. Every Secret that names
	// this ServiceAccount is reserved, whatever its name.
	Account string

	manifest []byte
}

// GVK returns the group, version and kind.
func (r *Resource) GVK() schema.GroupVersionKind { return r.GVR.GroupVersion().WithKind(r.Kind) }

// HasManifest reports whether there is a manifest to apply and to compare with.
func (r *Resource) HasManifest() bool { return r.manifest != nil }

// Manifest returns the reserved manifest as JSON; absent if HasManifest is false. It must not be changed.
func (r *Resource) Manifest() rawjson.Value { return r.manifest }

// Object returns a copy of the reserved manifest that the caller may change; nil if HasManifest is false.
func (r *Resource) Object() *unstructured.Unstructured {
	if !r.HasManifest() {
		return nil
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(r.manifest); err != nil {
		return nil // impossible: the loader encoded these bytes
	}
	return object
}

// IsTokenSecret reports whether the resource is a Secret that holds a credential of a ServiceAccount.
func (r *Resource) IsTokenSecret() bool { return r.Account != "" }

// Reference identifies an object of the resource's type.
func (r *Resource) Reference(namespace, name string) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{Group: r.GVR.Group, Resource: r.GVR.Resource, Namespace: namespace, Name: name}
}

// String returns the reference to the resource as text. A name prefix ends in "*".
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

// Identity identifies a stored object. Account is the annotation kubernetes.io/service-account.name, by which a Secret requests
// a token of a ServiceAccount.
type Identity struct {
	Namespace, Name, Account string
}

// IdentityOf reads the identity from the metadata of the object. A request to delete a collection has no name.
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

// Covers reports whether the resource reserves an object of its kind with this identity.
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

// Operations returns the operations that the guard decides on.
func Operations() []admissionv1.Operation {
	return []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// ObjectReference identifies an object of the API server. Absent parts are empty: Group in the core group, Namespace of a
// cluster-scoped object, Name where only the resource is known.
//
// +kubebuilder:object:generate=false
type ObjectReference struct {
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Group string `json:"group,omitempty"`
	// Resource is the plural name of the type, such as secrets.
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Resource string `json:"resource,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Namespace string `json:"namespace,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=320
	Name string `json:"name,omitempty"`
}

// GroupResource returns the type of the object.
func (r ObjectReference) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Resource}
}

// String returns "secrets/kube-system/NAME" or "clusterroles.rbac.authorization.k8s.io/NAME". Empty parts are left out.
func (r ObjectReference) String() string {
	parts := make([]string, 0, 3)
	for _, part := range []string{r.GroupResource().String(), r.Namespace, r.Name} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// ParseObjectReference reads what String returns.
func ParseObjectReference(text string) ObjectReference {
	groupResource, name, _ := strings.Cut(text, "/")
	object := ObjectReference{Name: name}
	object.Resource, object.Group, _ = strings.Cut(groupResource, ".")
	if namespace, rest, isNamespaced := strings.Cut(name, "/"); isNamespaced {
		object.Namespace, object.Name = namespace, rest
	}
	return object
}

// Group is the API group of all custom resources of the guard, and Version its version here.
const (
	Group   = guardian.Group
	Version = "v1alpha1"
)

// GroupVersion returns the group and version of this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes the types of this package known to a scheme, except Reservation, which only its writer decodes. It never fails;
// the error is what callers expect.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &AuditRecord{}, &AuditRecordList{}, &Unlock{}, &UnlockList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}

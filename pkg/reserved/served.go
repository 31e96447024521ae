// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ErrNotServed means that the API server does not serve a reserved resource under its plural name and in its scope.
var ErrNotServed = errors.New("not served by the API server")

// CheckServed checks that the API server serves every kind of the set, with or without a namespace as in its manifests. The function
// resources discovers the resources of a group and version. The error joins one ErrNotServed for each kind that is not served so, and
// the errors of resources.
func (s *Set) CheckServed(resources func(groupVersion string) (*metav1.APIResourceList, error)) error {
	var errs []error
	lists := map[string]*metav1.APIResourceList{}
	type scoped struct {
		schema.GroupVersionResource

		namespaced bool
	}
	checked := map[scoped]bool{}
	for _, resource := range s.Resources() {
		this := scoped{resource.GVR, resource.Namespace != ""}
		if checked[this] {
			continue
		}
		checked[this] = true
		version := resource.GVR.GroupVersion().String()
		if _, asked := lists[version]; !asked {
			list, err := resources(version)
			if err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("discover the resources of %s: %w", version, err))
			} else if list == nil {
				list = &metav1.APIResourceList{}
			}
			lists[version] = list
		}
		if list := lists[version]; list != nil {
			errs = append(errs, resource.checkServed(list))
		}
	}
	return errors.Join(errs...)
}

func (r *Resource) checkServed(list *metav1.APIResourceList) error {
	for _, served := range list.APIResources {
		switch {
		case served.Kind != r.Kind || strings.Contains(served.Name, "/"):
		case served.Name == r.GVR.Resource && served.Namespaced && r.Namespace == "":
			return fmt.Errorf("reservation %q: %s: a %s must have a namespace: add metadata.namespace to its manifest: %w",
				r.Reservation, r, r.Kind, ErrNotServed)
		case served.Name == r.GVR.Resource && !served.Namespaced && r.Namespace != "":
			return fmt.Errorf("reservation %q: %s: a %s has no namespace: remove metadata.namespace from its manifest: %w",
				r.Reservation, r, r.Kind, ErrNotServed)
		case served.Name == r.GVR.Resource:
			return nil
		default:
			return fmt.Errorf("reservation %q: %s: the plural of %s is %s: add `resource: %s` next to its manifest: %w",
				r.Reservation, r, r.GVK(), served.Name, served.Name, ErrNotServed)
		}
	}
	return fmt.Errorf(
		"reservation %q: %s: the API server serves no kind %s: correct apiVersion and kind, install its CustomResourceDefinition, or remove the resource: %w",
		r.Reservation, r, r.GVK(), ErrNotServed)
}

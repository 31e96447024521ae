// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ErrOverlap means that two reservations have the same name or reserve the same resource.
var ErrOverlap = errors.New("reserved twice")

// Reservation is a named set of reserved resources, read from one file.
type Reservation struct {
	Name  string
	Owner string
	// Source is the path of the file, for messages.
	Source string
	// Exemptions are the identities that may write to the resources.
	Exemptions []Exemption
	// BuiltIn says that the file is part of the product.
	BuiltIn bool
	// Resources are in the order of the file, in which they are applied. Derived resources, which have no manifest, follow them.
	Resources []*Resource
}

// Set has all reservations of a cluster. It is immutable and safe for concurrent use. The zero Set reserves nothing.
type Set struct {
	reservations []*Reservation
	byResource   map[schema.GroupResource][]*Resource
}

// NewSet returns the set of the reservations. It returns ErrOverlap if two of them have the same name or reserve the same resource.
func NewSet(reservations ...*Reservation) (*Set, error) {
	set := &Set{reservations: reservations, byResource: map[schema.GroupResource][]*Resource{}}
	sources := map[string]string{}
	for _, reservation := range reservations {
		if first, taken := sources[reservation.Name]; taken {
			return nil, fmt.Errorf("%s: metadata.name: %q is already the name of the reservation in %s: choose another: %w",
				reservation.Source, reservation.Name, first, ErrOverlap)
		}
		sources[reservation.Name] = reservation.Source
		for i, resource := range reservation.Resources {
			if err := set.add(resource); err != nil {
				return nil, fmt.Errorf("%s: spec.resources[%d]: %w", reservation.Source, i, err)
			}
		}
	}
	for _, reservation := range reservations {
		set.derive(reservation)
	}
	return set, nil
}

func (s *Set) add(resource *Resource) error {
	key := resource.GVR.GroupResource()
	for _, other := range s.byResource[key] {
		if overlap(resource, other) {
			return fmt.Errorf("%s is already reserved by %s of reservation %q: remove one of them: %w",
				resource, other, other.Reservation, ErrOverlap)
		}
	}
	s.byResource[key] = append(s.byResource[key], resource)
	return nil
}

// overlap reports whether both resources can reserve the same object.
func overlap(a, b *Resource) bool {
	if a.Namespace != b.Namespace {
		return false
	}
	if a.Account != "" && a.Account == b.Account || a.Name != "" && a.Name == b.Name {
		return true
	}
	return a.NamePrefix != "" && strings.HasPrefix(b.first(), a.NamePrefix) ||
		b.NamePrefix != "" && strings.HasPrefix(a.first(), b.NamePrefix)
}

// first returns the shortest name that the resource reserves.
func (r *Resource) first() string {
	if r.NamePrefix != "" {
		return r.NamePrefix
	}
	return r.Name
}

// derive adds the derived resources of a reservation: token Secrets of its ServiceAccounts, and the Namespaces of its resources.
// It leaves out the namespaces whose deletion the API server forbids.
func (s *Set) derive(reservation *Reservation) {
	for _, resource := range slices.Clone(reservation.Resources) {
		if resource.GVR.GroupResource() == (schema.GroupResource{Resource: "serviceaccounts"}) {
			s.addDerived(reservation, &Resource{
				Guard: GuardTokens, GVR: corev1.SchemeGroupVersion.WithResource("secrets"), Kind: "Secret",
				Namespace: resource.Namespace, Account: resource.Name,
			})
		}
		switch resource.Namespace {
		case "", metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault:
		default:
			s.addDerived(reservation, &Resource{
				Guard: GuardExistence, GVR: corev1.SchemeGroupVersion.WithResource("namespaces"), Kind: "Namespace",
				Name: resource.Namespace,
			})
		}
	}
}

func (s *Set) addDerived(reservation *Reservation, resource *Resource) {
	resource.Reservation, resource.Owner = reservation.Name, reservation.Owner
	if s.add(resource) == nil { // otherwise another resource covers it
		reservation.Resources = append(reservation.Resources, resource)
	}
}

// Reservations returns all reservations, the built-in one first. The slice must not be changed.
func (s *Set) Reservations() []*Reservation { return s.reservations }

// Reservation returns the reservation of that name, or nil.
func (s *Set) Reservation(name string) *Reservation {
	i := slices.IndexFunc(s.reservations, func(r *Reservation) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return s.reservations[i]
}

// Exemptions returns the exemptions of the reservation of that name. The slice must not be changed.
func (s *Set) Exemptions(reservation string) []Exemption {
	if found := s.Reservation(reservation); found != nil {
		return found.Exemptions
	}
	return nil
}

// FullName returns the text of the one reserved resource that a user names as kubectl does: clusterrole/NAME, clusterroles/NAME or
// secrets/NAMESPACE/NAME. It returns any other name as it is.
func (s *Set) FullName(name string) string {
	kind, rest, _ := strings.Cut(name, "/")
	object := rest[strings.LastIndex(rest, "/")+1:]
	var found []string
	for _, resource := range s.Resources() {
		full := resource.Reference(resource.Namespace, object)
		isObject := resource.Covers(Identity{Namespace: resource.Namespace, Name: object})
		if (Type{resource.GVR, resource.Kind}).IsNamed(kind) && isObject && strings.HasSuffix("/"+full.String(), "/"+rest) {
			found = append(found, full.String())
		}
	}
	if len(found) != 1 {
		return name
	}
	return found[0]
}

// Resources returns all reserved resources, in the order of the reservations and of their files.
func (s *Set) Resources() []*Resource {
	var all []*Resource
	for _, reservation := range s.reservations {
		all = append(all, reservation.Resources...)
	}
	return all
}

// WithManifest returns the reserved resources that have a manifest, in the order of Resources.
func (s *Set) WithManifest() []*Resource { return withManifest(s.Resources()) }

// WithManifest returns the resources of the file.
func (r *Reservation) WithManifest() []*Resource { return withManifest(r.Resources) }

func withManifest(resources []*Resource) []*Resource {
	return slices.DeleteFunc(slices.Clone(resources), func(r *Resource) bool { return !r.HasManifest() })
}

// Knows reports whether the set has a reserved resource of this group, version and resource.
func (s *Set) Knows(gvr schema.GroupVersionResource) bool {
	return slices.ContainsFunc(s.byResource[gvr.GroupResource()], func(r *Resource) bool { return r.GVR == gvr })
}

// Find returns the reserved resource that covers one of the identities in this group and resource, or nil. A write has up to two
// identities: those of the old and of the new object.
func (s *Set) Find(gvr schema.GroupVersionResource, identities ...Identity) *Resource {
	for _, resource := range s.byResource[gvr.GroupResource()] {
		if slices.ContainsFunc(identities, resource.Covers) {
			return resource
		}
	}
	return nil
}

// FindGuarded is like Find, but returns nil if the guard does not judge the operation: with GuardExistence, it judges only Delete.
func (s *Set) FindGuarded(operation admissionv1.Operation, gvr schema.GroupVersionResource, identities ...Identity) *Resource {
	resource := s.Find(gvr, identities...)
	if resource == nil || resource.Guard == GuardExistence && operation != admissionv1.Delete {
		return nil
	}
	return resource
}

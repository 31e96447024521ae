// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package registration says which requests the API server sends to the guard, and keeps it that way.
//
// The registration derives from the reserved set alone. Its match conditions keep every other object inside the API
// server: the guard never sees an unrelated Secret, and an unrelated write never waits for the guard.
package registration

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	// TimeoutSeconds is how long a write to a reserved resource waits for a hung guard before it fails.
	TimeoutSeconds = 5
	// enforcerAnnotation keeps admission enforcers of managed clusters from adding selectors to the entries.
	enforcerAnnotation = "admissions.enforcer/disabled"
)

// ErrInvalidEndpoint says that an Endpoint is not one that an API server could call.
var ErrInvalidEndpoint = errors.New("invalid endpoint")

// Endpoint is how the API server reaches the guard: by a URL, or by a Service. Its zero value is neither.
type Endpoint struct {
	url     string
	service *admissionregistrationv1.ServiceReference
}

// URLEndpoint takes "https://HOST:PORT"; path is what reviews are posted to. The error is ErrInvalidEndpoint.
func URLEndpoint(raw, path string) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return Endpoint{}, fmt.Errorf("%w: %q: give https://HOST:PORT", ErrInvalidEndpoint, raw)
	}
	u.Path = path
	return Endpoint{url: u.String()}, nil
}

// ServiceEndpoint takes "NAMESPACE/NAME:PORT"; path is what reviews are posted to. The error is ErrInvalidEndpoint.
func ServiceEndpoint(raw, path string) (Endpoint, error) {
	invalid := fmt.Errorf("%w: %q: give NAMESPACE/NAME:PORT", ErrInvalidEndpoint, raw)
	namespace, hostPort, found := strings.Cut(raw, "/")
	name, portText, err := net.SplitHostPort(hostPort)
	if !found || err != nil {
		return Endpoint{}, invalid
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1035Label(name)) > 0 {
		return Endpoint{}, invalid
	}
	return Endpoint{service: &admissionregistrationv1.ServiceReference{
		Namespace: namespace, Name: name, Path: new(path), Port: new(int32(port)),
	}}, nil
}

// Host returns the host name or IP literal that the API server expects in the guard's certificate.
func (e Endpoint) Host() string {
	if e.service != nil {
		return e.service.Name + "." + e.service.Namespace + ".svc"
	}
	u, err := url.Parse(e.url)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func (e Endpoint) clientConfig(bundle []byte) admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{Service: e.service.DeepCopy(), CABundle: slices.Clone(bundle)}
	if e.url != "" {
		config.URL = new(e.url)
	}
	return config
}

// Options are what a registration depends on besides the reserved set.
type Options struct {
	Endpoint Endpoint
	// CABundle is PEM: the authorities that the guard's certificate may come from.
	CABundle []byte
	// CertificateProblem is the text of the guardian.CertificateProblemAnnotation.
	CertificateProblem string
	// RecordsProblem is the text of the guardian.RecordsProblemAnnotation.
	RecordsProblem string
	// Annotations are further ones; nil for none.
	Annotations map[string]string
	// Owner is the cluster-scoped object with which the garbage collector takes the registration along; nil for none.
	Owner *metav1.OwnerReference
	// FailurePolicy is Fail where the guard enforces, and Ignore where it observes only.
	FailurePolicy admissionregistrationv1.FailurePolicyType
}

// Build returns the registration, every field set as the API server would default it, so that what is live can be compared
// with it field by field. It is a pure function: equal arguments give equal results, in the same order.
func Build(set *reserved.Set, options Options) *admissionregistrationv1.ValidatingWebhookConfiguration {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		TypeMeta: metav1.TypeMeta{
			APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration",
		},
		ObjectMeta: metav1.ObjectMeta{
			Name:   guardian.WebhookConfiguration,
			Labels: map[string]string{"app.kubernetes.io/name": guardian.Name, "app.kubernetes.io/managed-by": guardian.Name},
			Annotations: map[string]string{
				enforcerAnnotation: "true", guardian.CertificateProblemAnnotation: options.CertificateProblem, guardian.RecordsProblemAnnotation: options.RecordsProblem,
			},
		},
	}
	maps.Copy(configuration.Annotations, options.Annotations)
	if options.Owner != nil {
		configuration.OwnerReferences = []metav1.OwnerReference{*options.Owner}
	}
	for _, reservation := range set.Reservations() {
		for _, group := range groupByResource(reservation) {
			configuration.Webhooks = append(configuration.Webhooks, entry(reservation, group, options))
		}
	}
	configuration.Annotations[guardian.RevisionAnnotation] = revision(configuration.Webhooks)
	return configuration
}

// Bundle returns the caBundle that all entries of a registration have, and nil where they differ or there are none: what
// only some of them show is nothing to rely on.
func Bundle(configuration *admissionregistrationv1.ValidatingWebhookConfiguration) []byte {
	var bundle []byte
	for i, webhook := range configuration.Webhooks {
		if i > 0 && !bytes.Equal(webhook.ClientConfig.CABundle, bundle) {
			return nil
		}
		bundle = webhook.ClientConfig.CABundle
	}
	return bundle
}

// groupByResource gathers the resources of a reservation that share one entry: those of one kind that are guarded against
// the same operations.
func groupByResource(reservation *reserved.Reservation) [][]*reserved.Resource {
	var groups [][]*reserved.Resource
	for _, resource := range reservation.Resources {
		i := slices.IndexFunc(groups, func(group []*reserved.Resource) bool {
			return group[0].GVR == resource.GVR && isExistence(group[0]) == isExistence(resource)
		})
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], resource)
	}
	return groups
}

func isExistence(resource *reserved.Resource) bool { return resource.Guard == reserved.GuardExistence }

func entry(reservation *reserved.Reservation, group []*reserved.Resource, options Options) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    entryName(reservation, group[0]),
		ClientConfig:            options.Endpoint.clientConfig(options.CABundle),
		Rules:                   []admissionregistrationv1.RuleWithOperations{rule(group)},
		FailurePolicy:           new(options.FailurePolicy),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &metav1.LabelSelector{},
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNoneOnDryRun),
		TimeoutSeconds:          new(int32(TimeoutSeconds)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         matchConditions(group),
	}
}

// entryName is "clusterroles.apigw-guardian.io" for the built-in reservation, and has the reservation's name in it for any
// other. Where a reservation has a resource of the same name in two groups, or guards one kind in two ways, the name says
// which.
func entryName(reservation *reserved.Reservation, resource *reserved.Resource) string {
	parts := []string{resource.GVR.Resource}
	for _, other := range reservation.Resources {
		if other.GVR.Resource == resource.GVR.Resource && other.GVR != resource.GVR && resource.GVR.Group != "" {
			parts = append(parts, resource.GVR.Version, resource.GVR.Group)
			break
		}
	}
	if isExistence(resource) {
		parts = append(parts, "deletion")
	}
	if !reservation.BuiltIn {
		parts = append(parts, reservation.Name)
	}
	return strings.Join(append(parts, guardian.WebhookDomain), ".")
}

func rule(group []*reserved.Resource) admissionregistrationv1.RuleWithOperations {
	operations := []admissionregistrationv1.OperationType{
		admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete,
	}
	if isExistence(group[0]) {
		operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Delete}
	}
	scope := admissionregistrationv1.ClusterScope
	if group[0].Namespace != "" {
		scope = admissionregistrationv1.NamespacedScope
	}
	return admissionregistrationv1.RuleWithOperations{
		Operations: operations,
		Rule: admissionregistrationv1.Rule{
			APIGroups:   []string{group[0].GVR.Group},
			APIVersions: []string{group[0].GVR.Version},
			Resources:   resources(group),
			Scope:       new(scope),
		},
	}
}

// resources adds the subresource by which a resource with a spec may be edited past its own name. Where a kind has no such
// subresource, the rule fits nothing.
func resources(group []*reserved.Resource) []string {
	names := []string{group[0].GVR.Resource}
	if slices.ContainsFunc(group, func(r *reserved.Resource) bool { return r.Manifest().Get("spec").IsObject() }) {
		names = append(names, group[0].GVR.Resource+"/scale")
	}
	return names
}

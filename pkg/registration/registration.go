// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package registration builds the guard's ValidatingWebhookConfiguration, keeps it in place, and removes it.
//
// The webhook configuration derives from the reserved set. Its match conditions keep every other object inside the API server: the
// guard never sees an unrelated Secret, and an unrelated write never waits for the guard.
package registration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	// timeoutSeconds is how long a write to a reserved resource waits for a guard that hangs before it fails.
	timeoutSeconds = 5
	// enforcerAnnotation keeps admission enforcers of managed clusters from adding selectors to the webhooks.
	enforcerAnnotation = "admissions.enforcer/disabled"
)

var errInvalidEndpoint = errors.New("invalid endpoint")

// Endpoint is the URL or the Service at which the API server calls the guard. Its zero value is neither.
type Endpoint struct {
	host   string
	config admissionregistrationv1.WebhookClientConfig
}

// URLEndpoint parses "https://HOST:PORT". The API server posts reviews to the path.
func URLEndpoint(raw, path string) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || !isHost(u.Hostname()) || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return Endpoint{}, fmt.Errorf("%w: %q: must be https://HOST:PORT", errInvalidEndpoint, raw)
	}
	u.Path = path
	return Endpoint{host: u.Hostname(), config: admissionregistrationv1.WebhookClientConfig{URL: new(u.String())}}, nil
}

// isHost reports whether a certificate can be issued for the host. crypto/x509 accepts underscores in names.
func isHost(host string) bool {
	name := strings.ReplaceAll(strings.ToLower(host), "_", "x")
	return net.ParseIP(host) != nil || len(validation.IsDNS1123Subdomain(name)) == 0
}

// ServiceEndpoint parses "NAMESPACE/NAME:PORT". The API server posts reviews to the path.
func ServiceEndpoint(raw, path string) (Endpoint, error) {
	invalid := fmt.Errorf("%w: %q: must be NAMESPACE/NAME:PORT", errInvalidEndpoint, raw)
	namespace, hostPort, found := strings.Cut(raw, "/")
	name, portText, err := net.SplitHostPort(hostPort)
	if !found || err != nil {
		return Endpoint{}, invalid
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1035Label(name)) > 0 {
		return Endpoint{}, invalid
	}
	service := &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: name, Path: new(path), Port: new(int32(port))}
	return Endpoint{host: name + "." + namespace + ".svc", config: admissionregistrationv1.WebhookClientConfig{Service: service}}, nil
}

// Host returns the host name or IP literal that the API server expects in the guard's certificate.
func (e Endpoint) Host() string { return e.host }

func (e Endpoint) clientConfig(bundle []byte) admissionregistrationv1.WebhookClientConfig {
	config := e.config.DeepCopy()
	config.CABundle = slices.Clone(bundle)
	return *config
}

// Options are what a webhook configuration depends on besides the reserved set.
type Options struct {
	Endpoint Endpoint
	// CABundle holds, in PEM, the CAs that may have issued the guard's certificate.
	CABundle []byte
	// ProbeNamespace holds the ConfigMap that Reach writes to; "" for none.
	ProbeNamespace string
	// ReachabilityProblem is the text of the guardian.ReachabilityProblemAnnotation.
	ReachabilityProblem string
	// CertificateProblem is the text of the guardian.CertificateProblemAnnotation.
	CertificateProblem string
	// RecordsProblem is the text of the guardian.RecordsProblemAnnotation.
	RecordsProblem string
	// Annotations are further ones; nil for none.
	Annotations map[string]string
	// Owner is the cluster-scoped object with which the garbage collector deletes the webhook configuration; nil for none.
	Owner *metav1.OwnerReference
	// FailurePolicy is Fail for a guard that enforces, and Ignore for one that observes.
	FailurePolicy admissionregistrationv1.FailurePolicyType
	// SideDoors is the failure policy of the webhooks of side doors; "" for no such webhook.
	SideDoors admissionregistrationv1.FailurePolicyType
}

// Build returns the webhook configuration. Every field is set as the API server would default it, so that the live one can be compared
// field by field. It is a pure function: equal arguments give equal results, in the same order.
func Build(set *reserved.Set, options Options) *admissionregistrationv1.ValidatingWebhookConfiguration {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{
		TypeMeta: metav1.TypeMeta{
			APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration",
		},
		ObjectMeta: metav1.ObjectMeta{
			Name:   guardian.WebhookConfiguration,
			Labels: map[string]string{"app.kubernetes.io/name": guardian.Name, "app.kubernetes.io/managed-by": guardian.Name},
			Annotations: map[string]string{
				enforcerAnnotation:                     "true",
				guardian.CertificateProblemAnnotation:  options.CertificateProblem,
				guardian.RecordsProblemAnnotation:      options.RecordsProblem,
				guardian.ReachabilityProblemAnnotation: options.ReachabilityProblem,
			},
		},
	}
	maps.Copy(configuration.Annotations, options.Annotations)
	if options.Owner != nil {
		configuration.OwnerReferences = []metav1.OwnerReference{*options.Owner}
	}
	for _, group := range groups(set) {
		webhook := newWebhook(group.name, options)
		webhook.Rules = []admissionregistrationv1.RuleWithOperations{policies.Rule(group.resources)}
		webhook.MatchConditions = policies.MatchConditions(group.resources)
		configuration.Webhooks = append(configuration.Webhooks, webhook)
	}
	configuration.Webhooks = append(configuration.Webhooks, unlocksWebhook(options), recordsWebhook(options))
	configuration.Webhooks = append(configuration.Webhooks, sideDoorWebhooks(set, options)...)
	configuration.Annotations[guardian.RevisionAnnotation] = revision(configuration.Webhooks)
	return configuration
}

// Bundle returns the caBundle that all webhooks have, or nil if they differ or if there are none.
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

// The webhooks that always fail closed.
const (
	unlocksWebhookName = "unlocks." + guardian.WebhookDomain
	recordsWebhookName = "auditrecords." + guardian.WebhookDomain
)

func alwaysFails(name string) bool { return name == unlocksWebhookName || name == recordsWebhookName }

// unlocksWebhook guards the unlocks. It fails closed even if the guard observes: an Unlock that the
// guard did not judge must not count later.
func unlocksWebhook(options Options) admissionregistrationv1.ValidatingWebhook {
	options.FailurePolicy = admissionregistrationv1.Fail
	webhook := newWebhook(unlocksWebhookName, options)
	webhook.Rules = ownRules([]string{"unlocks", "unlocks/status"},
		admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete)
	if options.ProbeNamespace != "" {
		addProbe(&webhook, options.ProbeNamespace)
	}
	return webhook
}

// recordsWebhook guards the acknowledgements of audit records. It fails closed even if the guard observes: one that the guard did not
// judge could bear any name. The guard stores records without the status, so that the webhook never delays it.
func recordsWebhook(options Options) admissionregistrationv1.ValidatingWebhook {
	options.FailurePolicy = admissionregistrationv1.Fail
	webhook := newWebhook(recordsWebhookName, options)
	webhook.Rules = ownRules([]string{"auditrecords/status"}, admissionregistrationv1.Update)
	return webhook
}

// ownRules match operations on the guard's custom resources.
func ownRules(resources []string, operations ...admissionregistrationv1.OperationType) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{Operations: operations, Rule: admissionregistrationv1.Rule{
		APIGroups: []string{guardian.Group}, APIVersions: []string{"v1alpha1"}, Resources: resources,
		Scope: new(admissionregistrationv1.ClusterScope),
	}}}
}

func newWebhook(name string, options Options) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    name,
		ClientConfig:            options.Endpoint.clientConfig(options.CABundle),
		FailurePolicy:           new(options.FailurePolicy),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &metav1.LabelSelector{},
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNoneOnDryRun),
		TimeoutSeconds:          new(int32(timeoutSeconds)),
		AdmissionReviewVersions: []string{"v1"},
	}
}

// A running guard restores the webhook configuration within a second, so that a removal counts only if it lasts.
const (
	removalLasts    = 2 * time.Second
	removalAttempts = 5
)

var errRestored = errors.New("a running guard restores the webhook configuration: stop the guard first: " +
	"scale its Deployment to 0 or end its process")

// Remove deletes the webhook configuration and reports whether there was one. It returns an error if a running guard restores it. First
// it deletes the binding of the policy that guards the webhook configuration, if the caller may: that policy denies most callers.
func Remove(ctx context.Context, client admissionregistrationv1client.AdmissionregistrationV1Interface) (removed bool, err error) {
	err = client.ValidatingAdmissionPolicyBindings().Delete(ctx, guardian.RegistrationPolicy, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false, fmt.Errorf("delete validatingadmissionpolicybinding %q: %w", guardian.RegistrationPolicy, err)
	}
	last := errRestored
	for range removalAttempts {
		err := client.ValidatingWebhookConfigurations().Delete(ctx, guardian.WebhookConfiguration, metav1.DeleteOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return removed, nil
		case isByPolicy(err):
			last = fmt.Errorf("%w: %w", errPolicy, err)
		case err != nil:
			return removed, fmt.Errorf("delete validatingwebhookconfiguration %q: %w", guardian.WebhookConfiguration, err)
		default:
			removed, last = true, errRestored
		}
		select {
		case <-ctx.Done():
			return removed, ctx.Err()
		case <-time.After(removalLasts):
		}
	}
	return removed, last
}

var errPolicy = errors.New("a policy denies the deletion of the webhook configuration: delete its binding first: " +
	"kubectl delete validatingadmissionpolicybinding " + guardian.RegistrationPolicy)

// isByPolicy reports whether the guard's policy denied a deletion. An API server that has just lost the binding denies for a second.
func isByPolicy(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+guardian.RegistrationPolicy+"'")
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

var (
	// ErrUnreachable wraps the API server's message that it cannot call the guard.
	ErrUnreachable = errors.New("the API server cannot reach the guard")
	// ErrNotAsked means that the API server did not call the guard: the webhook configuration is not in effect yet, or is rewritten, or
	// a version of the guard without this probe has answered.
	ErrNotAsked = errors.New("the API server did not call the guard")
)

// addProbe lets the webhook of the unlocks match the dry-runs of Reach too, and nothing else of their kind. That webhook always fails
// closed, so that the API server says why it cannot call the guard. The selector does not apply to unlocks, which have no namespace.
func addProbe(webhook *admissionregistrationv1.ValidatingWebhook, namespace string) {
	webhook.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
	webhook.Rules = append(webhook.Rules, admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"},
			Scope: new(admissionregistrationv1.NamespacedScope),
		},
	})
	webhook.MatchConditions = []admissionregistrationv1.MatchCondition{{
		Name: "unlock-or-probe", Expression: "request.resource.group != '' || (has(request.dryRun) && request.dryRun && object != null" +
			" && object.metadata.name == " + policies.Quote(guardian.Replicas) +
			" && has(object.metadata.annotations) && " + policies.Quote(guardian.ProbeAnnotation) + " in object.metadata.annotations)",
	}}
}

// Reach finds out whether API servers reach the guard: it sends a dry-run that the guard denies, and that stores nothing. The error
// wraps ErrUnreachable or ErrNotAsked, or says why the caller cannot find out.
func Reach(ctx context.Context, client corev1client.ConfigMapsGetter, namespace string) error {
	object := corev1apply.ConfigMap(guardian.Replicas, namespace).
		WithAnnotations(map[string]string{guardian.ProbeAnnotation: probe.NewNonce()})
	_, err := client.ConfigMaps(namespace).Apply(ctx, object, metav1.ApplyOptions{
		FieldManager: guardian.FieldManager + "-probe", DryRun: []string{metav1.DryRunAll},
	})
	if err == nil {
		return ErrNotAsked
	}
	status, isAnswer := errors.AsType[*apierrors.StatusError](err)
	if !isAnswer {
		return fmt.Errorf("send the probe: %w", err)
	}
	// The API server's messages: k8s.io/apiserver/pkg/admission/plugin/webhook/{errors,generic}.
	const webhook = `webhook "` + unlocksWebhookName + `"`
	message := status.Status().Message
	switch {
	case status.Status().Code == http.StatusForbidden && strings.HasPrefix(message, "admission "+webhook+" denied the request"):
		return nil
	case strings.Contains(message, "failed calling "+webhook):
		return fmt.Errorf("%w: %s", ErrUnreachable, message)
	}
	return fmt.Errorf("send the probe: %w", err)
}

// ReachRemedy says what to do about ErrUnreachable. port is the one on which the guard's Pods listen.
func ReachRemedy(port string) string {
	return "allow TCP port " + port + " from the control plane to the guard's Pods and nodes, or set the chart's webhook.port to a port " +
		"that is open, such as 10250, or hostNetwork to true where the control plane cannot reach Pods"
}

// ProbeNamespace returns the namespace for Reach; "" if live is nil or of a version without the probe.
func ProbeNamespace(live *admissionregistrationv1.ValidatingWebhookConfiguration) string {
	if live == nil {
		return ""
	}
	for _, webhook := range live.Webhooks {
		if webhook.Name == unlocksWebhookName && webhook.NamespaceSelector != nil {
			return webhook.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]
		}
	}
	return ""
}

// FailsClosed reports whether each webhook of live calls the address of the endpoint, as any version does, and fails closed. Those of side
// doors need not.
func FailsClosed(live *admissionregistrationv1.ValidatingWebhookConfiguration, endpoint Endpoint) bool {
	if live == nil || len(live.Webhooks) == 0 {
		return false
	}
	return !slices.ContainsFunc(live.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		fails := w.FailurePolicy != nil && *w.FailurePolicy == admissionregistrationv1.Fail
		return !fails && !isSideDoor(&w) || addressOf(w.ClientConfig) != addressOf(endpoint.clientConfig(nil))
	})
}

// addressOf returns what tells one listener from another: the paths of versions differ.
func addressOf(config admissionregistrationv1.WebhookClientConfig) string {
	switch {
	case config.Service != nil && config.Service.Port != nil: // the API server sets a missing port
		return fmt.Sprintf("%s/%s:%d", config.Service.Namespace, config.Service.Name, *config.Service.Port)
	case config.URL != nil:
		address, err := url.Parse(*config.URL)
		if err == nil {
			return "https://" + address.Host
		}
	}
	return ""
}

// isUnproven reports whether live is what a guard writes before it knows that API servers reach it: it ignores failures, and is as
// wanted otherwise.
func isUnproven(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	unproven := slices.Clone(want.Webhooks)
	for i := range unproven {
		if !alwaysFails(unproven[i].Name) {
			unproven[i].FailurePolicy = new(admissionregistrationv1.Ignore)
		}
	}
	return revision(live.Webhooks) == revision(unproven)
}

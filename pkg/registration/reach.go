// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

var (
	// ErrUnreachable wraps the API server's message that it cannot call the guard.
	ErrUnreachable = errors.New("the API server cannot reach the guard")
	// ErrNotAsked means that the API server did not call the guard: the webhook configuration is not in effect yet, or is rewritten, or
	// a version of the guard without this probe has answered.
	ErrNotAsked = errors.New("the API server did not call the guard")
)

const reachWebhookName = "reachable." + guardian.WebhookDomain

// reachWebhook matches only the dry-runs of Reach. It fails closed, so that the API server says why it cannot call the guard.
func reachWebhook(options Options) admissionregistrationv1.ValidatingWebhook {
	options.FailurePolicy = admissionregistrationv1.Fail
	webhook := newWebhook(reachWebhookName, options)
	webhook.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: options.ProbeNamespace}}
	webhook.Rules = []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"},
			Scope: new(admissionregistrationv1.NamespacedScope),
		},
	}}
	webhook.MatchConditions = []admissionregistrationv1.MatchCondition{{
		Name: "probe", Expression: "has(request.dryRun) && request.dryRun && object != null && object.metadata.name == " + quote(guardian.Replicas) +
			" && has(object.metadata.annotations) && " + quote(guardian.ProbeAnnotation) + " in object.metadata.annotations",
	}}
	return webhook
}

// Reach finds out whether API servers reach the guard: it sends a dry-run that the guard denies, and that stores nothing. The error
// wraps ErrUnreachable or ErrNotAsked, or says why the caller cannot find out.
func Reach(ctx context.Context, client corev1client.ConfigMapsGetter, namespace string) error {
	object := corev1apply.ConfigMap(guardian.Replicas, namespace).
		WithAnnotations(map[string]string{guardian.ProbeAnnotation: probe.NewNonce()})
	_, err := client.ConfigMaps(namespace).Apply(ctx, object, metav1.ApplyOptions{
		FieldManager: guardian.FieldManager + "-probe", DryRun: []string{metav1.DryRunAll},
	})
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return ErrNotAsked
	case !errors.As(err, &status):
		return fmt.Errorf("send the probe: %w", err)
	}
	// The API server's messages: k8s.io/apiserver/pkg/admission/plugin/webhook/{errors,generic}.
	const webhook = `webhook "` + reachWebhookName + `"`
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
		if webhook.Name == reachWebhookName && webhook.NamespaceSelector != nil {
			return webhook.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]
		}
	}
	return ""
}

// FailsClosed reports whether a guard has written live, and each of its webhooks calls the endpoint and fails closed.
func FailsClosed(live *admissionregistrationv1.ValidatingWebhookConfiguration, endpoint Endpoint) bool {
	if live == nil || len(live.Webhooks) == 0 || live.Annotations[guardian.RevisionAnnotation] != revision(live.Webhooks) {
		return false
	}
	return !slices.ContainsFunc(live.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		fails := w.FailurePolicy != nil && *w.FailurePolicy == admissionregistrationv1.Fail
		return !fails || !equality.Semantic.DeepEqual(w.ClientConfig, endpoint.clientConfig(w.ClientConfig.CABundle))
	})
}

// isUnproven reports whether live is what a guard writes before it knows that API servers reach it: it ignores failures, and is as
// wanted otherwise.
func isUnproven(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	unproven := slices.Clone(want.Webhooks)
	for i := range unproven {
		if name := unproven[i].Name; name != reachWebhookName && name != unlocksWebhookName {
			unproven[i].FailurePolicy = new(admissionregistrationv1.Ignore)
		}
	}
	return revision(live.Webhooks) == revision(unproven)
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// Defect is what lets writes pass a webhook configuration.
type Defect string

// Defects.
const (
	// Missing: there is no webhook configuration, or it is being deleted.
	Missing Defect = "Missing"
	// Rewritten: another client changed its webhooks, such as their selectors.
	Rewritten Defect = "Rewritten"
)

// DefectOf returns what lets writes pass the live webhook configuration, nil where there is none, and says where; "" for nothing. It does
// not need the wanted one, so it knows neither a wrong endpoint nor a wrong CA bundle: writes fail with those.
func DefectOf(live *admissionregistrationv1.ValidatingWebhookConfiguration) (Defect, string) {
	name := fmt.Sprintf("validatingwebhookconfiguration %q", guardian.WebhookConfiguration)
	switch {
	case live == nil:
		return Missing, name + " is absent"
	case live.DeletionTimestamp != nil:
		return Missing, name + " is being deleted"
	}
	if problem := live.Annotations[guardian.RegistrationProblemAnnotation]; problem != "" && !strings.Contains(problem, Partial) {
		return "", "" // the guard has found that what rewrites it leaves the protection complete
	}
	for _, webhook := range live.Webhooks {
		switch {
		case webhook.Name == unlocksWebhookName: // its own selector is for the probe of Reach
		case selects(webhook.NamespaceSelector):
			return Rewritten, fmt.Sprintf("webhook %q of %s has a namespaceSelector", webhook.Name, name)
		case selects(webhook.ObjectSelector):
			return Rewritten, fmt.Sprintf("webhook %q of %s has an objectSelector", webhook.Name, name)
		}
	}
	if live.Annotations[guardian.RevisionAnnotation] != revision(live.Webhooks) {
		return Rewritten, "the webhooks of " + name + " are not those that the guard wrote"
	}
	return "", ""
}

// Problems returns what the guard reports on the webhook configuration, nil where there is none, that leaves reserved resources
// unprotected; nil for nothing.
func Problems(live *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
	var problems []string
	if live == nil {
		return nil
	}
	if problem := live.Annotations[guardian.RegistrationProblemAnnotation]; strings.Contains(problem, Partial) {
		problems = append(problems, problem)
	}
	if problem := live.Annotations[guardian.ReachabilityProblemAnnotation]; problem != "" {
		problems = append(problems, problem)
	}
	return problems
}

func selects(selector *metav1.LabelSelector) bool {
	return selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) > 0
}

// Observes reports whether each webhook of the reserved resources lets writes pass that the guard does not answer: the guard observes.
func Observes(live *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	if live == nil || len(live.Webhooks) == 0 {
		return false
	}
	for _, webhook := range live.Webhooks {
		ignores := webhook.FailurePolicy != nil && *webhook.FailurePolicy == admissionregistrationv1.Ignore
		if !ignores && !alwaysFails(webhook.Name) {
			return false
		}
	}
	return true
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// addRecording tries to create an audit record, as a dry-run, and reads what the guard says. Where the caller may not create
// one and the guard says nothing, it is not known whether denials are recorded.
func (a *Authorizer) addRecording(ctx context.Context, status *Status) {
	if a.cluster.Records == nil {
		return
	}
	problems := []string{}
	live, err := a.cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(
		ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err == nil && live.Annotations[guardian.RecordsProblemAnnotation] != "" {
		problems = append(problems, sentence("The guard does not record denials: "+live.Annotations[guardian.RecordsProblemAnnotation]))
	}
	err = a.cluster.Records.TryCreate(ctx)
	// Quotas and admission answer like RBAC.
	known := !apierrors.IsForbidden(err) || a.mayCreateRecords(ctx)
	if err != nil && known {
		problems = append(problems, sentence(fmt.Sprintf("Denials cannot be recorded: %v", err)))
	}
	if known || len(problems) > 0 {
		status.Recorded = new(len(problems) == 0)
	}
	status.Reasons = append(status.Reasons, problems...)
}

// mayCreateRecords reports whether RBAC lets the caller create audit records: a refusal then has another cause.
func (a *Authorizer) mayCreateRecords(ctx context.Context) bool {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: v1alpha1.Group, Resource: "auditrecords", Verb: "create"},
	}}
	// Nothing is stored either way; as a dry-run, status sends no other write.
	answer, err := a.cluster.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(
		ctx, review, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil && answer.Status.Allowed
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
)

// Certificate is the part of cert-manager's Certificate that says whether it is issued.
type Certificate struct {
	metav1.ObjectMeta `json:"metadata"`

	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// Certificates returns the Certificates that the chart made; nil if cert-manager is not installed, or the caller may not
// list them.
func Certificates(ctx context.Context, cluster live.Cluster) []Certificate {
	const selector = "app.kubernetes.io/name=" + guardian.WebhookConfiguration
	resource := schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}
	list, err := cluster.Dynamic.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil
	}
	var certificates []Certificate
	for _, item := range list.Items {
		var certificate Certificate
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &certificate); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// Problem says why cert-manager has not issued a Certificate; "" if it has:
//
//	Certificate guard/apigw-guardian is not ready: DoesNotExist: Issuing certificate as Secret does not exist
func (c *Certificate) Problem() string {
	text := "Certificate " + c.Namespace + "/" + c.Name + " is not ready: "
	ready := meta.FindStatusCondition(c.Status.Conditions, "Ready")
	if ready == nil {
		return text + "cert-manager has not looked at it: check that cert-manager runs"
	}
	if ready.Status == metav1.ConditionTrue {
		return ""
	}
	text += ready.Reason + ": " + strings.TrimRight(ready.Message, ". \n")
	issuing := meta.FindStatusCondition(c.Status.Conditions, "Issuing")
	if issuing != nil && issuing.Message != "" && issuing.Message != ready.Message {
		text += "; " + issuing.Reason + ": " + strings.TrimRight(issuing.Message, ". \n")
	}
	return text
}

// checkCertificates never fails: a Certificate that is not ready can be a moment old.
func checkCertificates(certificates []Certificate) Check {
	for _, certificate := range certificates {
		if problem := certificate.Problem(); problem != "" {
			return Check{
				Status: Unknown, Message: problem,
				Remedy: fmt.Sprintf("The guard starts once it is: kubectl -n %s describe certificate,certificaterequest,issuer",
					certificate.Namespace),
			}
		}
	}
	return Check{Status: Pass, Message: "cert-manager has issued the guard's certificate"}
}

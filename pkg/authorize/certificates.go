// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"strings"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	certmanagermetav1 "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
)

// Certificates returns the Certificates that the chart made; nil if cert-manager is not installed, or the caller may not
// list them.
func Certificates(ctx context.Context, cluster live.Cluster) []certmanagerv1.Certificate {
	const selector = "app.kubernetes.io/name=" + guardian.WebhookConfiguration
	resource := certmanagerv1.SchemeGroupVersion.WithResource("certificates")
	list, err := cluster.Dynamic.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil
	}
	var certificates []certmanagerv1.Certificate
	for _, item := range list.Items {
		var certificate certmanagerv1.Certificate
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &certificate); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// CertificateProblem says why cert-manager has not issued a Certificate; "" if it has:
//
//	Certificate guard/apigw-guardian is not ready: DoesNotExist: Issuing certificate as Secret does not exist
func CertificateProblem(certificate *certmanagerv1.Certificate) string {
	text := "Certificate " + certificate.Namespace + "/" + certificate.Name + " is not ready: "
	ready := apiutil.GetCertificateCondition(certificate, certmanagerv1.CertificateConditionReady)
	if ready == nil {
		return text + "cert-manager has not looked at it: check that cert-manager runs"
	}
	if ready.Status == certmanagermetav1.ConditionTrue {
		return ""
	}
	text += ready.Reason + ": " + strings.TrimRight(ready.Message, ". \n")
	issuing := apiutil.GetCertificateCondition(certificate, certmanagerv1.CertificateConditionIssuing)
	if issuing != nil && issuing.Message != "" && issuing.Message != ready.Message {
		text += "; " + issuing.Reason + ": " + strings.TrimRight(issuing.Message, ". \n")
	}
	return text
}

// checkCertificates never fails: a Certificate that is not ready can be a moment old.
func checkCertificates(certificates []certmanagerv1.Certificate) Check {
	for _, certificate := range certificates {
		if problem := CertificateProblem(&certificate); problem != "" {
			return Check{
				Status: Unknown, Message: problem,
				Remedy: fmt.Sprintf("The guard starts once it is: kubectl -n %s describe certificate,certificaterequest,issuer",
					certificate.Namespace),
			}
		}
	}
	return Check{Status: Pass, Message: "cert-manager has issued the guard's certificate"}
}

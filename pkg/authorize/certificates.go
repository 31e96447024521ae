// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/cert"
)

// certificateSelector finds the Certificates that the chart makes.
const certificateSelector = "app.kubernetes.io/name=" + guardian.WebhookConfiguration

// certificateResource is cert-manager's.
var certificateResource = schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}

// issuedCertificate is the part of cert-manager's Certificate that says whether it is issued.
type issuedCertificate struct {
	metav1.ObjectMeta `json:"metadata"`

	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// Certificates is how it stands with what API servers trust the guard by.
type Certificates struct {
	// NotAfter is when the last authority in the registration ends; nil where there is none.
	NotAfter *time.Time `json:"notAfter"`
	// Problems are sentences for people; never nil.
	Problems []string `json:"problems"`
}

// certificates looks at the registration, and at the Certificates that the chart has made with cert-manager, if it has.
func (a *Authorizer) certificates(ctx context.Context) Certificates {
	found := Certificates{Problems: []string{}}
	live, err := a.cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(
		ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err == nil {
		found.NotAfter = lastEnd(live)
		if problem := live.Annotations[guardian.CertificateProblemAnnotation]; problem != "" {
			found.Problems = append(found.Problems, sentence("The guard says: "+problem))
		}
		if found.NotAfter != nil && time.Now().After(*found.NotAfter) {
			found.Problems = append(found.Problems, fmt.Sprintf("Every certificate authority in the registration has expired, the last on %s.",
				found.NotAfter.Format(time.RFC3339)))
		}
	}
	for _, certificate := range a.chartCertificates(ctx) {
		if problem := notReady(&certificate); problem != "" {
			found.Problems = append(found.Problems, problem)
		}
	}
	return found
}

// lastEnd is when the last of the registration's authorities ends.
func lastEnd(live *admissionregistrationv1.ValidatingWebhookConfiguration) *time.Time {
	var last *time.Time
	for _, webhook := range live.Webhooks {
		authorities, err := cert.ParseCertsPEM(webhook.ClientConfig.CABundle)
		if err != nil {
			continue // the API server cannot read it either, and a tried write says so
		}
		for _, authority := range authorities {
			if last == nil || authority.NotAfter.After(*last) {
				last = new(authority.NotAfter.UTC())
			}
		}
	}
	return last
}

// chartCertificates returns the Certificates that the chart has made; none where cert-manager is not installed, or where they
// may not be listed.
func (a *Authorizer) chartCertificates(ctx context.Context) []issuedCertificate {
	list, err := a.cluster.Dynamic.Resource(certificateResource).List(ctx, metav1.ListOptions{LabelSelector: certificateSelector})
	if err != nil {
		return nil
	}
	var certificates []issuedCertificate
	for _, item := range list.Items {
		var certificate issuedCertificate
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &certificate); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// notReady says what keeps cert-manager from issuing a Certificate, or nothing where it is ready:
//
//	Certificate guard/apigw-guardian is not ready: DoesNotExist: Issuing certificate as Secret does not exist.
func notReady(certificate *issuedCertificate) string {
	name := "Certificate " + certificate.Namespace + "/" + certificate.Name
	ready := meta.FindStatusCondition(certificate.Status.Conditions, "Ready")
	if ready == nil {
		return name + " is not ready: cert-manager has not looked at it. Does cert-manager run?"
	}
	if ready.Status == metav1.ConditionTrue {
		return ""
	}
	text := name + " is not ready: " + ready.Reason + ": " + ready.Message
	issuing := meta.FindStatusCondition(certificate.Status.Conditions, "Issuing")
	if issuing != nil && issuing.Message != "" && issuing.Message != ready.Message {
		text = sentence(text) + " " + issuing.Reason + ": " + issuing.Message
	}
	return sentence(text)
}

func sentence(text string) string { return strings.TrimRight(text, ". \n") + "." }

// checkCertificates is a check of those clusters only whose guard has its certificate from cert-manager. One that is not ready
// does not keep anybody from being authorized: it may be a moment old.
func (a *Authorizer) checkCertificates(ctx context.Context) (check Check, applies bool) {
	certificates := a.chartCertificates(ctx)
	for _, certificate := range certificates {
		if problem := notReady(&certificate); problem != "" {
			return Check{
				Status:  Unknown,
				Message: problem,
				Remedy: fmt.Sprintf("The guard starts once it is: kubectl -n %s describe certificate,certificaterequest,issuer",
					certificate.Namespace),
			}, true
		}
	}
	return Check{Status: Pass, Message: "cert-manager has issued the guard's certificate."}, len(certificates) > 0
}

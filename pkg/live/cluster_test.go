// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// status prints the problems, and any client that may write the webhook configuration can change them.
func TestProblemsOfTheWebhookConfigurationArePrintable(t *testing.T) {
	t.Parallel()
	const hostile, ca = "\x1b[2Jgone\n", "-----BEGIN CERTIFICATE-----\n"
	cluster := Cluster{Client: fake.NewClientset(&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
		Name: guardian.WebhookConfiguration, Annotations: map[string]string{
			guardian.CertificateProblemAnnotation: hostile, guardian.RecordsProblemAnnotation: hostile,
			guardian.RegistrationProblemAnnotation: hostile, guardian.ReachabilityProblemAnnotation: hostile,
			guardian.CAAnnotationPrefix + "a": ca,
		},
	}})}
	registered, err := cluster.WebhookConfiguration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range registered.Annotations {
		if isCA := strings.HasPrefix(key, guardian.CAAnnotationPrefix); isCA && value != ca || !isCA && strings.ContainsAny(value, "\x1b\n") {
			t.Errorf("%s: %q", key, value)
		}
	}
}

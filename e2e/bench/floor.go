// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// startFloor registers the least that any webhook does: TLS, the uid of the review, and a fixed denial of updates of the reserved
// ClusterRole. It returns what ends it.
func (b *bench) startFloor(ctx context.Context) (end func() error, err error) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(denyAll))
	server.EnableHTTP2 = true
	server.StartTLS()
	clients, err := kubernetes.NewForConfig(b.cluster.AdminConfig())
	if err != nil {
		server.Close()
		return nil, err
	}
	configurations := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err = configurations.Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "floor"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "floor.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL:      &server.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{"rbac.authorization.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"clusterroles"},
				},
			}},
			MatchConditions: []admissionregistrationv1.MatchCondition{{
				Name: "reserved", Expression: fmt.Sprintf("request.name == %q", b.world.Role.Name),
			}},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		server.Close()
		return nil, err
	}
	return func() error {
		defer server.Close()
		return configurations.Delete(context.WithoutCancel(ctx), "floor", metav1.DeleteOptions{})
	}, nil
}

const floorAnswer = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":%s,"allowed":false,` +
	`"status":{"code":403,"reason":"Forbidden","message":"denied"}}}`

func denyAll(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, after, _ := bytes.Cut(body, []byte(`"uid":`))
	var uid json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(after)).Decode(&uid); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", scenario.JSON)
	_, _ = fmt.Fprintf(w, floorAnswer, uid)
}

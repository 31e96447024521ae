// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// live returns a webhook configuration with so many keys of replicas that have ended, and an annotation of another client.
func live(keys int) *admissionregistrationv1.ValidatingWebhookConfiguration {
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	configuration.Name, configuration.Annotations = guardian.WebhookConfiguration, map[string]string{"example.org/other": "kept"}
	for i := range keys {
		ended := probe.NewReplica(time.Unix(int64(i), 0))
		configuration.Annotations[ended.KeyAnnotation()] = ended.Publication()
	}
	return configuration
}

func noBundles() []byte { return nil }

func TestAReplicaPublishesItsKeyAndOldOnesLeave(t *testing.T) {
	for _, keys := range []int{0, 3, maxReplicaKeys - 1, maxReplicaKeys, maxReplicaKeys + 40} {
		t.Run(fmt.Sprintf("with %d keys", keys), func(t *testing.T) {
			client := fake.NewClientset(live(keys)).AdmissionregistrationV1()
			replica := probe.NewReplica(time.Now())
			publisher := &Publisher{Client: client, Replica: replica, Bundle: noBundles, Log: slog.New(slog.DiscardHandler)}
			for range 2 { // the second one finds nothing to do
				if err := publisher.Publish(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got, err := client.ValidatingWebhookConfigurations().Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			subject := probe.Subject{Nonce: probe.NewNonce()}
			published := probe.KeysOf(got.Annotations)
			if !published.Prove(replica.Sign(subject), subject) || len(published) != min(keys+1, maxReplicaKeys) {
				t.Errorf("%d keys, or not this replica's", len(published))
			}
			if diff := cmp.Diff("kept", got.Annotations["example.org/other"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingIsPublishedWithoutAWebhookConfiguration(t *testing.T) {
	client := fake.NewClientset()
	publisher := &Publisher{
		Client: client.AdmissionregistrationV1(), Replica: probe.NewReplica(time.Now()), Bundle: noBundles, Log: slog.New(slog.DiscardHandler),
	}
	if err := publisher.Publish(t.Context()); err != nil || len(client.Actions()) != 1 {
		t.Errorf("error %v, %d requests", err, len(client.Actions()))
	}
}

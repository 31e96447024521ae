// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// pemOf makes PEM that holds a word; nothing here parses the certificate.
func pemOf(base64 string) string {
	return "-----BEGIN CERTIFICATE-----\n" + base64 + "\n-----END CERTIFICATE-----\n"
}

// The CAs that a replica finds at its start stay for the length of a rolling upgrade; those that another client adds later do not.
func TestCAsAreInheritedForTheLengthOfAnUpgrade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		live := func(bundle string) *admissionregistrationv1.ValidatingWebhookConfiguration {
			return &admissionregistrationv1.ValidatingWebhookConfiguration{Webhooks: []admissionregistrationv1.ValidatingWebhook{
				{ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: []byte(bundle)}},
			}}
		}
		own, older, foreign := pemOf("AAAA"), pemOf("BBBB"), pemOf("CCCC")
		g := &Guard{}
		for _, step := range []struct {
			live *admissionregistrationv1.ValidatingWebhookConfiguration
			want string
		}{{nil, own}, {live(older), own + older}, {live(own + older + foreign), own + older}} {
			if got := string(g.trusted([]byte(own), step.live)); got != step.want {
				t.Errorf("got\n%s, want\n%s", got, step.want)
			}
		}
		time.Sleep(inheritance)
		if got := string(g.trusted([]byte(own), live(own+older))); got != own {
			t.Errorf("after the upgrade, got\n%s", got)
		}
	})
}

// A replica takes the lease only once the leader has given up: it names another holder until then.
func TestALeaseIsClaimedInTwoSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: guardian.WebhookConfiguration},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("older")},
		})
		g := &Guard{client: client, name: "new", options: Options{Namespace: "ns", Log: slog.New(slog.DiscardHandler)}}
		holder := func() string {
			lease, err := client.CoordinationV1().Leases("ns").Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return *lease.Spec.HolderIdentity
		}
		ended := make(chan error, 1)
		go func() { ended <- g.claimLease(t.Context()) }()
		time.Sleep(renewDeadline + time.Second)
		if got := holder(); got == "older" || got == "new" || !strings.HasPrefix(got, "new") {
			t.Errorf("while the leader may hold on, the holder is %q", got)
		}
		if err := <-ended; err != nil || holder() != "new" {
			t.Errorf("got %v and holder %q", err, holder())
		}
		writes := len(client.Actions())
		if err := g.claimLease(t.Context()); err != nil || len(client.Actions()) != writes+1 {
			t.Errorf("a leader claims its own lease: %v", err)
		}
	})
}

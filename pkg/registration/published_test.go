// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// newCA returns a self-signed certificate that ends then, in PEM.
func newCA(t *testing.T, end time.Time) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestPublishedCAs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, b, expired := newCA(t, now.Add(time.Hour)), newCA(t, now.Add(time.Hour)), newCA(t, now.Add(-time.Hour))
	many := map[string]string{}
	for i := range maxPublishers + 3 {
		many[fmt.Sprintf("%s%02d", guardian.CAAnnotationPrefix, i)] = publication(newCA(t, now.Add(time.Hour)), now.Add(-time.Duration(i)*time.Minute))
	}
	one := func(value string) map[string]string {
		return map[string]string{guardian.CAAnnotationPrefix + "x": value, "example.com/x": value}
	}
	for name, test := range map[string]struct {
		annotations map[string]string
		want        int
	}{
		"none":                      {nil, 0},
		"one":                       {one(publication(a, now)), 1},
		"two, and one again":        {one(publication(Union(a, b, a), now)), 2},
		"one that is too old":       {one(publication(a, now.Add(-2*forgetCAs))), 0},
		"one from the future":       {one(publication(a, now.Add(time.Hour))), 0},
		"one without a time":        {one("x"), 0},
		"one that is no base64":     {one("!" + publication(a, now)), 0},
		"one that is no PEM":        {one(publication([]byte("junk"), now)), 0},
		"one that has expired":      {one(publication(expired, now)), 0},
		"one that is too large":     {one(publication(bytes.Repeat(a, 100), now)), 0},
		"more replicas than may be": {many, maxPublishers},
	} {
		if got := bytes.Count(Union(PublishedCAs(test.annotations, now)), []byte("BEGIN")); got != test.want {
			t.Errorf("%s: got %d CAs, want %d", name, got, test.want)
		}
	}
	if got := Without(Union(a, b), b); !bytes.Equal(got, a) {
		t.Errorf("got\n%s, want\n%s", got, a)
	}
}

// A replica publishes its CAs, renews them while it runs, follows a change, and removes them when it has ended.
func TestAReplicaPublishesItsCAsWhileItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newCA(t, time.Now().Add(24*time.Hour)), newCA(t, time.Now().Add(24*time.Hour))
		configuration := live(0)
		configuration.Annotations[guardian.CAAnnotationPrefix+"killed"] = publication(second, time.Now().Add(-2*forgetCAs))
		configurations := fake.NewClientset(configuration)
		bundle := first
		publisher := &Publisher{
			Client: configurations.AdmissionregistrationV1(), Replica: probe.NewReplica(time.Now()), Log: slog.New(slog.DiscardHandler),
			Bundle: func() []byte { return bundle },
		}
		published := func() []byte {
			got, err := publisher.Client.ValidatingWebhookConfigurations().Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Annotations[guardian.CAAnnotationPrefix+"killed"] != "" {
				t.Error("the CAs of a replica that was killed stay")
			}
			return PublishedCAs(got.Annotations, time.Now())
		}
		for _, bundle = range [][]byte{first, second} {
			for range 10 { // hours
				if err := publisher.Publish(t.Context()); err != nil || !bytes.Equal(published(), bundle) {
					t.Fatalf("got %v and\n%s", err, published())
				}
				time.Sleep(time.Hour)
			}
		}
		if err := publisher.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		writes := len(configurations.Actions())
		if err := publisher.Publish(t.Context()); err != nil || len(configurations.Actions()) != writes+1 {
			t.Errorf("%d requests to find that nothing has changed, %v", len(configurations.Actions())-writes, err)
		}
		publisher.Leave(t.Context())
		if got := published(); len(got) > 0 {
			t.Errorf("the CAs stay:\n%s", got)
		}
	})
}

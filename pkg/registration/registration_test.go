// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

var updateGolden = flag.Bool("update", false, "write the golden registrations anew; read the difference before you commit it")

func TestBuild(t *testing.T) {
	t.Parallel()
	byURL, err := URLEndpoint("https://127.0.0.1:9443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	byService, err := ServiceEndpoint("apigw-guardian/apigw-guardian:443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		dir     string
		options Options
	}{
		"built-in": {"", Options{Endpoint: byURL, CABundle: []byte("bundle"), FailurePolicy: admissionregistrationv1.Fail}},
		"by-service": {"", Options{
			Endpoint: byService, CABundle: []byte("bundle"), FailurePolicy: admissionregistrationv1.Ignore, ProbeNamespace: "apigw-guardian",
			SideDoors: admissionregistrationv1.Ignore,
		}},
		"second-set": {"testdata/reservations", Options{
			Endpoint: byURL, FailurePolicy: admissionregistrationv1.Fail, SideDoors: admissionregistrationv1.Fail,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := reserved.Load(test.dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(Build(set, test.options))
			if err != nil {
				t.Fatal(err)
			}
			golden := "testdata/" + name + ".golden.yaml"
			if *updateGolden {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNoTwoWebhooksShareAName(t *testing.T) {
	t.Parallel()
	set, err := reserved.Load("testdata/reservations")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, entry := range Build(set, Options{}).Webhooks {
		if seen[entry.Name] {
			t.Errorf("two webhooks are named %s", entry.Name)
		}
		seen[entry.Name] = true
		if !strings.HasSuffix(entry.Name, "."+guardian.WebhookDomain) {
			t.Errorf("%s does not end in .%s", entry.Name, guardian.WebhookDomain)
		}
	}
}

// A second webhook of a kind would call the guard twice for one write, and two of one name are refused.
func TestResourcesOfAKindShareAWebhook(t *testing.T) {
	t.Parallel()
	reservation, err := reserved.Parse("x.yaml", []byte(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation","metadata":{"name":"x"},
		"spec":{"owner":"x","resources":[
		{"manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}}},
		{"manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"default"}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := reserved.NewSet(reservation)
	if err != nil {
		t.Fatal(err)
	}
	if webhooks := Build(set, Options{}).Webhooks; len(webhooks) != 3 || webhooks[1].Name != "unlocks.apigw-guardian.io" {
		t.Errorf("%d webhooks, want one, and that of the unlocks: %+v", len(webhooks), webhooks)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		make func(raw, path string) (Endpoint, error)
		raw  string
		host string
	}{
		"an IP":                           {URLEndpoint, "https://127.0.0.1:9443", "127.0.0.1"},
		"an IPv6 address":                 {URLEndpoint, "https://[::1]:9443", "::1"},
		"a name without a port":           {URLEndpoint, "https://guard.example", "guard.example"},
		"a trailing slash":                {URLEndpoint, "https://guard.example/", "guard.example"},
		"a service":                       {ServiceEndpoint, "ns/name:443", "name.ns.svc"},
		"http":                            {URLEndpoint, "http://guard.example", ""},
		"a path":                          {URLEndpoint, "https://guard.example/path", ""},
		"a query":                         {URLEndpoint, "https://guard.example?x", ""},
		"a user":                          {URLEndpoint, "https://a@guard.example", ""},
		"a host with an underscore":       {URLEndpoint, "https://the_guard.example", "the_guard.example"},
		"a host of other letters":         {URLEndpoint, "https://wächter.example", ""},
		"no URL":                          {URLEndpoint, "guard", ""},
		"a service without a port":        {ServiceEndpoint, "ns/name", ""},
		"a service with no port":          {ServiceEndpoint, "ns/name:0", ""},
		"a service with a high port":      {ServiceEndpoint, "ns/name:65536", ""},
		"a service without its namespace": {ServiceEndpoint, "name:443", ""},
		"a namespace that is none":        {ServiceEndpoint, "Ns/name:443", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpoint, err := test.make(test.raw, "/path")
			if test.host == "" {
				if !errors.Is(err, errInvalidEndpoint) {
					t.Errorf("got error %v, want errInvalidEndpoint", err)
				}
				return
			}
			if err != nil || endpoint.Host() != test.host {
				t.Errorf("got host %q and error %v, want %q", endpoint.Host(), err, test.host)
			}
		})
	}
}

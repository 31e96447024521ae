// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
)

// A Certificate that is a moment old must not fail the preflight of an installation.
func TestPreflightChecksCertificatesOfCertManager(t *testing.T) {
	tests := map[string]struct {
		certificates []runtime.Object
		want         []Status
	}{
		"is left out without cert-manager":         {},
		"passes if each Certificate is ready":      {[]runtime.Object{shop.Certificate(shop.Condition("Ready", "True", "Ready", ""))}, []Status{Pass}},
		"is unknown if a Certificate is not ready": {[]runtime.Object{shop.Certificate(shop.Condition("Ready", "False", "Pending", "wait"))}, []Status{Unknown}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newFake(t, nil, test.certificates)
			var got []Status
			for _, check := range a.Preflight(t.Context(), Options{}).Checks {
				if check.ID == "certificates" {
					got = append(got, check.Status)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestWorst(t *testing.T) {
	tests := map[string]struct {
		statuses []Status
		want     Status
	}{
		"no check passes":                   {nil, Pass},
		"Pass passes":                       {[]Status{Pass, Pass}, Pass},
		"Skipped passes":                    {[]Status{Skipped}, Pass},
		"Unknown is worse than Pass":        {[]Status{Pass, Unknown, Pass}, Unknown},
		"Fail is worse than Unknown before": {[]Status{Unknown, Fail}, Fail},
		"Fail is worse than Unknown after":  {[]Status{Fail, Unknown}, Fail},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var checks []Check
			for _, status := range test.statuses {
				checks = append(checks, Check{Status: status})
			}
			if got := worst(checks); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

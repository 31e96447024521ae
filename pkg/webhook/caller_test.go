// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

func TestCallerOf(t *testing.T) {
	shown := []*x509.Certificate{{}}
	cases := map[string]struct {
		connection *tls.ConnectionState
		want       v1alpha1.Caller
	}{
		"without TLS":                          {nil, ""},
		"without a certificate":                {&tls.ConnectionState{}, ""},
		"with a certificate of somebody":       {&tls.ConnectionState{PeerCertificates: shown}, v1alpha1.CallerUnverified},
		"with a certificate that was verified": {&tls.ConnectionState{PeerCertificates: shown, VerifiedChains: [][]*x509.Certificate{shown}}, v1alpha1.CallerVerified},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := webhook.CallerOf(&http.Request{TLS: tc.connection}); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http/httptest"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// kept holds the last fact.
type kept struct{ fact audit.Event }

func (k *kept) Record(_ context.Context, fact audit.Event) string {
	k.fact = fact
	return "name"
}

// deletion is a review of the corpus that is denied.
func deletion(t *testing.T) []byte {
	t.Helper()
	for _, c := range cases(t) {
		if c.Name == "delete-role" {
			return c.Review
		}
	}
	t.Fatal("the corpus has no delete-role")
	return nil
}

func TestAFactSaysWhetherItsCallerWasVerified(t *testing.T) {
	shown := []*x509.Certificate{{}}
	verified := tls.ConnectionState{PeerCertificates: shown, VerifiedChains: [][]*x509.Certificate{shown}}
	for name, test := range map[string]struct {
		asks       bool
		connection tls.ConnectionState
		want       v1alpha1.Caller
	}{
		"nobody is asked":               {false, tls.ConnectionState{}, ""},
		"a caller presents none":        {true, tls.ConnectionState{}, v1alpha1.CallerUnverified},
		"a caller presents a good one":  {true, verified, v1alpha1.CallerVerified},
		"a caller presents another one": {true, tls.ConnectionState{PeerCertificates: shown}, v1alpha1.CallerUnverified},
	} {
		t.Run(name, func(t *testing.T) {
			recorder := &kept{}
			handler := newHandler(t, io.Discard, false)
			handler.Recorder, handler.AsksCallers = recorder, test.asks
			request := httptest.NewRequestWithContext(t.Context(), "POST", "https://guard"+Path, bytes.NewReader(deletion(t)))
			request.Header.Set("Content-Type", "application/json")
			request.TLS, request.RemoteAddr = &test.connection, "192.0.2.1:4444"
			handler.ServeHTTP(httptest.NewRecorder(), request)
			if recorder.fact.Caller != test.want || recorder.fact.Peer != "192.0.2.1:4444" {
				t.Errorf("got %q from %q, want %q", recorder.fact.Caller, recorder.fact.Peer, test.want)
			}
		})
	}
}

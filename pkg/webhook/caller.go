// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// CallerOf reports whether a client certificate proves that the caller is an API server. It returns "" for a request without a
// certificate: the listener asks for none, or accepts callers without one.
func CallerOf(r *http.Request) v1alpha1.Caller {
	switch {
	case r.TLS == nil || len(r.TLS.PeerCertificates) == 0:
		return ""
	case len(r.TLS.VerifiedChains) == 0:
		return v1alpha1.CallerUnverified
	}
	return v1alpha1.CallerVerified
}

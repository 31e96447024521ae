// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// CallerOf says whether the API server that asked proved by a client certificate that it is one. It is absent ("") where the
// request carries no certificate: the listener asks for none, or lets callers do without one.
func CallerOf(r *http.Request) v1alpha1.Caller {
	switch {
	case r.TLS == nil || len(r.TLS.PeerCertificates) == 0:
		return ""
	case len(r.TLS.VerifiedChains) == 0:
		return v1alpha1.CallerUnverified
	}
	return v1alpha1.CallerVerified
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// prove returns the line that the message of a denied probe ends in: the proof that this replica denied it. It returns "" for
// every other request. The line holds no value of the object.
func (h *Handler) prove(request *policy.Request, decision policy.Decision) string {
	if h.Replica == nil || decision.Allowed || decision.Resource == nil || !request.DryRun {
		return ""
	}
	nonce := request.Object.Get("metadata", "annotations", guardian.ProbeAnnotation).Text()
	if !probe.IsNonce(nonce) {
		return ""
	}
	h.Metrics.probes.Inc()
	return "\n" + h.Replica.Sign(probe.Subject{
		Nonce: nonce, Operation: request.Operation, Resource: request.GVR.GroupResource().String(), Namespace: decision.Object.Namespace,
	})
}

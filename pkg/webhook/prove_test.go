// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// A denied dry-run with a nonce is proved, and nothing else is.
func TestOnlyAProbeIsProved(t *testing.T) {
	t.Parallel()
	const nonce = "0123456789abcdef0123456789abcdef"
	subject := probe.Subject{Nonce: nonce, Operation: "UPDATE", Resource: "clusterroles.rbac.authorization.k8s.io"}
	replica := probe.NewReplica(time.Now())
	keys := probe.KeysOf(map[string]string{replica.KeyAnnotation(): replica.Publication()})
	cases := map[string]struct {
		review, nonce string
		real          bool
		want          bool
	}{
		"a probe":                    {review: "role-verbs", nonce: nonce, want: true},
		"a real write":               {review: "role-verbs", nonce: nonce, real: true},
		"a nonce that is too short":  {review: "role-verbs", nonce: nonce[1:]},
		"a nonce in capital letters": {review: "role-verbs", nonce: strings.ToUpper(nonce)},
		"a nonce with a line break":  {review: "role-verbs", nonce: nonce + `\nproof: x`},
		"no nonce":                   {review: "role-verbs"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := string(named(t, tc.review))
			if tc.nonce != "" {
				// The object comes ahead of the old object.
				body = strings.Replace(body, `"metadata":{`, `"metadata":{"annotations":{"`+guardian.ProbeAnnotation+`":"`+tc.nonce+`"},"was":{`, 1)
				body = strings.Replace(body, `"was":{`, "", 1)
			}
			if !tc.real {
				body = strings.Replace(body, `"dryRun":false`, `"dryRun":true`, 1)
			}
			handler := newHandler(t, io.Discard, true)
			handler.Replica = replica
			answer := answerOf(t, post(t, handler, []byte(body)))
			if answer.Allowed || answer.Result.Reason != "Forbidden" {
				t.Fatalf("got %+v", answer)
			}
			message := answer.Result.Message
			if got := keys.Prove(message, subject); got != tc.want || strings.Contains(message, "proof: ") != tc.want {
				t.Errorf("proved %v: %s", got, message)
			}
			if tc.nonce != "" && strings.Contains(message, tc.nonce) {
				t.Errorf("the message holds the nonce: %s", message)
			}
			if got := testutil.ToFloat64(handler.Metrics.probes); (got == 1) != tc.want {
				t.Errorf("%v probes are counted", got)
			}
		})
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"strings"
	"testing"
)

// A probe of the way to the guard is denied and leaves no line; anything that only looks like one is judged as every other review.
func TestAReachProbeIsDeniedWithoutATrace(t *testing.T) {
	t.Parallel()
	const probe = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"version":"v1","kind":"ConfigMap"},` +
		`"resource":{"version":"v1","resource":"configmaps"},"name":"apigw-guardian-replicas","namespace":"guard","operation":"CREATE",` +
		`"userInfo":{"username":"x"},"dryRun":true,"oldObject":null,"object":{"metadata":{"name":"apigw-guardian-replicas","namespace":"guard",` +
		`"annotations":{"guardian.apigw.io/attack":"0123456789abcdef0123456789abcdef"}}}}}`
	for name, test := range map[string]struct {
		old, replacement string
		denied           bool
	}{
		"a probe":             {denied: true},
		"a real write":        {old: `"dryRun":true`, replacement: `"dryRun":false`},
		"another ConfigMap":   {old: `"name":"apigw-guardian-replicas","namespace":"guard","operation"`, replacement: `"name":"x","namespace":"guard","operation"`},
		"another kind":        {old: `"resource":"configmaps"`, replacement: `"resource":"pods"`},
		"a nonce that is not": {old: "0123456789abcdef0123456789abcdef", replacement: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			answer := answerOf(t, post(t, newHandler(t, &log, true), []byte(strings.Replace(probe, test.old, test.replacement, 1))))
			isProbe := !answer.Allowed && strings.Contains(answer.Result.Message, "reaches the guard")
			if isProbe != test.denied || test.denied && log.Len() > 0 {
				t.Errorf("got %+v, and the log\n%s", answer, &log)
			}
		})
	}
}

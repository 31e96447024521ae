// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// The kubelet kills a Pod after its terminationGracePeriodSeconds, which the chart computes from the drain period.
func TestThePodOutlivesTheShutdown(t *testing.T) {
	t.Parallel()
	const template = "../../charts/apigw-guardian/templates/webhook.yaml"
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`terminationGracePeriodSeconds: \{\{ add \$drain (\d+) \}\}`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s adds no number of seconds to $drain", template)
	}
	seconds, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	const margin = 5 * time.Second // to start and end the container
	for _, drain := range []time.Duration{0, 10 * time.Second, time.Minute} {
		if got, need := drain+time.Duration(seconds)*time.Second, ShutdownPeriod(drain)+margin; got < need {
			t.Errorf("drain %s: the chart allows %s, the guard needs %s", drain, got, need)
		}
	}
}

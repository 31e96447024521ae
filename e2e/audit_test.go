// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// auditEvent is what these tests read of an event of the API server's audit log.
type auditEvent struct {
	AuditID     string            `json:"auditID"`
	Annotations map[string]string `json:"annotations"`
	User        struct {
		Username string `json:"username"`
	} `json:"user"`
	Verb      string `json:"verb"`
	ObjectRef struct {
		Resource, Namespace, Name string
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// auditEvents returns the events for which keep holds, in the order of the log.
func auditEvents(t *testing.T, keep func(line []byte) bool) []auditEvent {
	t.Helper()
	file, err := os.Open(harness.Of(t).Cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var events []auditEvent
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return events
		}
		if !keep(line) {
			continue
		}
		var event auditEvent
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("audit log: %v: %s", err, line)
		}
		events = append(events, event)
	}
}

// guardAnnotations returns what the guard has said in the audit event of a write, without the name of its webhook.
func guardAnnotations(t *testing.T, answer scenario.Answer) map[string]string {
	t.Helper()
	if answer.AuditID == "" {
		t.Fatalf("the API server names no audit event: %d %s", answer.Code, answer.Body)
	}
	events := auditEvents(t, func(line []byte) bool { return bytes.Contains(line, []byte(answer.AuditID)) })
	if len(events) != 1 {
		t.Fatalf("got %d audit events of %s, want 1", len(events), answer.AuditID)
	}
	return ofGuard(events[0])
}

// ofGuard returns the guard's annotations of an event, without the name of its webhook.
func ofGuard(event auditEvent) map[string]string {
	annotations := map[string]string{}
	for key, value := range event.Annotations {
		webhook, key, _ := strings.Cut(key, "/")
		if strings.HasSuffix(webhook, ".apigw-guardian.io") || strings.HasPrefix(webhook, "apigw-guardian-") { // a webhook or a policy
			annotations[key] = value
		}
	}
	return annotations
}

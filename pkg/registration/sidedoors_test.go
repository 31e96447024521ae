// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// A set of many reservations stays within the limits of the API server: 64 conditions, and 100,000 code points for each.
func TestSideDoorsOfManyReservations(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 120 {
		name := fmt.Sprintf("%s-%d", strings.Repeat("a", 240), i)
		files[name+".yaml"] = fmt.Sprintf(`
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: r%[1]d}
spec:
  owner: R
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: n%[1]d, name: %[2]s}}
  - manifest: {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: %[2]s}}
`, i, name)
	}
	set, err := reserved.LoadFiles("test", files)
	if err != nil {
		t.Fatal(err)
	}
	names, accounts := map[string]bool{}, 0
	for _, webhook := range sideDoorWebhooks(set, Options{SideDoors: admissionregistrationv1.Ignore}) {
		if names[webhook.Name] || !isSideDoor(&webhook) || *webhook.FailurePolicy != admissionregistrationv1.Ignore {
			t.Errorf("%s: twice, or not a side door, or failing closed", webhook.Name)
		}
		names[webhook.Name] = true
		if len(webhook.MatchConditions) > 64 {
			t.Errorf("%s has %d conditions", webhook.Name, len(webhook.MatchConditions))
		}
		for _, condition := range webhook.MatchConditions {
			if len(condition.Expression) > 100_000 {
				t.Errorf("%s: %s has %d bytes", webhook.Name, condition.Name, len(condition.Expression))
			}
		}
		if strings.HasPrefix(webhook.Name, SideDoorPrefix+"pods") {
			accounts += strings.Count(webhook.MatchConditions[0].Expression, "/"+strings.Repeat("a", 240))
		}
	}
	if accounts != 120 {
		t.Errorf("%d of 120 ServiceAccounts have a condition", accounts)
	}
}

// The webhooks of side doors may fail open while the others fail closed, and their loss lets no write to a reserved resource pass.
func TestSideDoorsDoNotCountAsProtection(t *testing.T) {
	t.Parallel()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := URLEndpoint("https://127.0.0.1:9443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	options := Options{Endpoint: endpoint, FailurePolicy: admissionregistrationv1.Fail, SideDoors: admissionregistrationv1.Ignore}
	want := Build(set, options)
	if !FailsClosed(want, endpoint) || Observes(want) {
		t.Error("side doors that are observed make the guard look open")
	}
	options.SideDoors = ""
	without := Build(set, options)
	if len(want.Webhooks) != len(without.Webhooks)+4 || !protectsAsMuch(without, want) || protectsAsMuch(&admissionregistrationv1.ValidatingWebhookConfiguration{}, want) {
		t.Error("side doors count as protection")
	}
}

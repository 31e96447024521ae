// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withExemption returns a reservation file with one exemption, given as YAML.
func withExemption(exemption string) []byte {
	return fmt.Appendf(nil, `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: edge}
spec:
  owner: Edge
  exemptions: [%s]
  resources:
  - manifest: {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: edge}}
`, exemption)
}

func TestParseRefusesExemptions(t *testing.T) {
	t.Parallel()
	const rest = "operations: [UPDATE], reason: the console edits it"
	for name, test := range map[string]struct{ exemption, say string }{
		"no identity":                      {`{` + rest + `}`, "spec.exemptions[0]: Required value: set exactly one"},
		"an empty identity":                {`{user: "", ` + rest + `}`, "spec.exemptions[0]: Required value: set exactly one"},
		"two identities":                   {`{user: alice, group: vendors, ` + rest + `}`, "set exactly one"},
		"three identities":                 {`{user: alice, group: vendors, serviceAccount: a/b, ` + rest + `}`, "set exactly one"},
		"a pattern of users":               {`{user: "system:*", ` + rest + `}`, "must be an exact name"},
		"a user of two lines":              {`{user: "a\nb", ` + rest + `}`, "must be an exact name"},
		"a pattern of groups":              {`{group: "*", ` + rest + `}`, "must be an exact name"},
		"all administrators":               {`{group: "system:masters", ` + rest + `}`, "spec.exemptions[0].group: Invalid"},
		"all users":                        {`{group: "system:authenticated", ` + rest + `}`, "spec.exemptions[0].group: Invalid"},
		"all others":                       {`{group: "system:unauthenticated", ` + rest + `}`, "spec.exemptions[0].group: Invalid"},
		"all ServiceAccounts":              {`{group: "system:serviceaccounts", ` + rest + `}`, "spec.exemptions[0].group: Invalid"},
		"an account without a namespace":   {`{serviceAccount: editor, ` + rest + `}`, "serviceAccount: Invalid value: \"editor\": must be NAMESPACE/NAME"},
		"an account with an empty name":    {`{serviceAccount: console/, ` + rest + `}`, "must be NAMESPACE/NAME"},
		"an account in no namespace":       {`{serviceAccount: /editor, ` + rest + `}`, "must be NAMESPACE/NAME"},
		"an account with two slashes":      {`{serviceAccount: a/b/c, ` + rest + `}`, "must be NAMESPACE/NAME"},
		"the user name of an account":      {`{serviceAccount: "system:serviceaccount:a/b", ` + rest + `}`, "must be NAMESPACE/NAME"},
		"an account with a colon":          {`{serviceAccount: "a/b:c", ` + rest + `}`, "must be NAMESPACE/NAME"},
		"no operations":                    {`{user: alice, reason: the console}`, "spec.exemptions[0].operations: Required"},
		"an empty list of operations":      {`{user: alice, operations: [], reason: the console}`, "spec.exemptions[0].operations: Required"},
		"an unknown operation":             {`{user: alice, operations: [UPDATE, CONNECT], reason: the console}`, "spec.exemptions[0].operations[1]: Unsupported"},
		"a pattern of operations":          {`{user: alice, operations: ["*"], reason: the console}`, "spec.exemptions[0].operations[0]: Unsupported"},
		"an operation in lower case":       {`{user: alice, operations: [update], reason: the console}`, "spec.exemptions[0].operations[0]: Unsupported"},
		"no reason":                        {`{user: alice, operations: [UPDATE]}`, "spec.exemptions[0].reason: Invalid"},
		"a blank reason":                   {`{user: alice, operations: [UPDATE], reason: "  "}`, "spec.exemptions[0].reason: Invalid"},
		"a reason of 501 characters":       {`{user: alice, operations: [UPDATE], reason: ` + strings.Repeat("x", 501) + `}`, "1 to 500 characters"},
		"an end that is no time":           {`{user: alice, until: tomorrow, ` + rest + `}`, "tomorrow"},
		"an end that is a day":             {`{user: alice, until: "2026-12-01", ` + rest + `}`, "2026-12-01"},
		"a misspelled end":                 {`{user: alice, end: "2026-12-01T00:00:00Z", ` + rest + `}`, `unknown field "spec.exemptions[0].end"`},
		"two mistakes, and the second one": {`{user: alice, ` + rest + `}, {group: "system:masters", ` + rest + `}`, "spec.exemptions[1].group: Invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("edge.yaml", withExemption(test.exemption))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), "edge.yaml") || !strings.Contains(fmt.Sprint(err), test.say) {
				t.Errorf("got error %v, want ErrInvalid that says %q", err, test.say)
			}
		})
	}
}

func TestParseReadsExemptions(t *testing.T) {
	t.Parallel()
	reason := strings.Repeat("ä", 500)
	reservation, err := Parse("edge.yaml", withExemption(`{user: alice, operations: [CREATE, UPDATE, DELETE], reason: `+reason+`},
    {serviceAccount: console/editor, operations: [UPDATE], reason: the console, until: "2026-12-01T00:00:00Z"},
    {group: "system:serviceaccounts:console", operations: [DELETE], reason: the console}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Exemption{
		{User: "alice", Operations: []admissionv1.Operation{"CREATE", "UPDATE", "DELETE"}, Reason: reason},
		{
			ServiceAccount: "console/editor", Operations: []admissionv1.Operation{"UPDATE"}, Reason: "the console",
			Until: new(metav1.NewTime(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))),
		},
		{Group: "system:serviceaccounts:console", Operations: []admissionv1.Operation{"DELETE"}, Reason: "the console"},
	}
	if diff := cmp.Diff(want, reservation.Exemptions); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	set, err := NewSet(reservation)
	if err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for _, exemption := range set.Exemptions("edge") {
		subjects = append(subjects, exemption.Subject())
	}
	if diff := cmp.Diff([]string{"user alice", "serviceaccount console/editor", "group system:serviceaccounts:console"}, subjects); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if set.Exemptions("other") != nil || set.Reservation("other") != nil || set.Reservation("edge") != reservation {
		t.Error("a reservation is found under another name")
	}
}

func TestFullName(t *testing.T) {
	t.Parallel()
	const (
		role  = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
		token = "secrets/kube-system/apigw-ingress-token-guardian"
	)
	for given, want := range map[string]string{
		"clusterrole/apigw-ingress-clusterrole":     role,
		"ClusterRole/apigw-ingress-clusterrole":     role,
		"clusterroles/apigw-ingress-clusterrole":    role,
		role:                                        role,
		"serviceaccount/apigw-ingress":              "serviceaccounts/kube-system/apigw-ingress",
		"serviceaccounts/kube-system/apigw-ingress": "serviceaccounts/kube-system/apigw-ingress",
		"secret/apigw-ingress-token-guardian":       token,
		"secrets/kube-system/apigw-ingress-token-x": "secrets/kube-system/apigw-ingress-token-x",
		"secret/kube-system/apigw-ingress-token-x":  "secrets/kube-system/apigw-ingress-token-x",
		"secrets/kube-system/apigw-ingress-token-*": "secrets/kube-system/apigw-ingress-token-*",
		"configmap/edge-a":                          "configmaps/edge-system/edge-a",
		"configmap/edge-system/edge-a":              "configmaps/edge-system/edge-a",
		"namespace/edge-system":                     "namespaces/edge-system",
		"configmap/default/edge-a":                  "configmap/default/edge-a", // not reserved: the guard says so
		"configmap/stem/edge-a":                     "configmap/stem/edge-a",
		"clusterrole/apigw-ingress-clusterrole-2":   "clusterrole/apigw-ingress-clusterrole-2",
		"clusterrole/a/apigw-ingress-clusterrole":   "clusterrole/a/apigw-ingress-clusterrole",
		"clusterroles.example.com/apigw-ingress":    "clusterroles.example.com/apigw-ingress",
		"sa/apigw-ingress":                          "serviceaccounts/kube-system/apigw-ingress",
		"SA/apigw-ingress":                          "serviceaccounts/kube-system/apigw-ingress",
		"serviceaccounts.v1./apigw-ingress":         "serviceaccounts/kube-system/apigw-ingress",
		"cm/edge-a":                                 "configmaps/edge-system/edge-a",
		"ns/edge-system":                            "namespaces/edge-system",
		"clusterrole.v1.rbac.authorization.k8s.io/apigw-ingress-clusterrole": role,
		"clusterrole.v2.rbac.authorization.k8s.io/apigw-ingress-clusterrole": "clusterrole.v2.rbac.authorization.k8s.io/apigw-ingress-clusterrole",
		"apigw-ingress-clusterrole": "apigw-ingress-clusterrole",
		"clusterrole":               "clusterrole",
		"clusterrole/":              "clusterrole/",
		"":                          "",
		"/":                         "/",
		"secrets/kube-system/apigw-ingress-token-/..": "secrets/kube-system/apigw-ingress-token-/..",
	} {
		if got := mustLoad(t, "testdata/valid").FullName(given); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestAMessageNamesNamespaceAndRecord(t *testing.T) {
	t.Parallel()
	account := Decision{Reason: ReservedDelete, Resource: builtIn(t, "ServiceAccount"), Object: v1alpha1.ParseObjectReference("serviceaccounts/kube-system/apigw-ingress")}
	role := Decision{Reason: ReservedDelete, Resource: builtIn(t, "ClusterRole"), Object: v1alpha1.ObjectReference{Name: "apigw-ingress-clusterrole"}}
	const accountSays, roleSays = `ServiceAccount "apigw-ingress" is reserved by API Gateway and must not be deleted.`,
		`ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be deleted.`
	for name, test := range map[string]struct {
		decision           Decision
		hint, record, want string
		sentence           string
	}{
		"both":                       {account, "hint", "r-1", accountSays + " [namespace kube-system, record r-1]\nhint", accountSays},
		"a dry run":                  {account, "", "", accountSays + " [namespace kube-system]", accountSays},
		"a cluster-scoped resource":  {role, "hint", "r-1", roleSays + " [record r-1]\nhint", roleSays},
		"neither":                    {role, "hint", "", roleSays + "\nhint", roleSays},
		"a request that is not read": {Deny(TooLarge), "hint", "r-1", Deny(TooLarge).Sentence() + " [record r-1]", Deny(TooLarge).Sentence()},
	} {
		got := test.decision.Message(test.hint, test.record)
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		line, _, _ := strings.Cut(got, "\n")
		if got := SentenceOf(line); got != test.sentence {
			t.Errorf("%s: the sentence is %q, want %q", name, got, test.sentence)
		}
	}
}
